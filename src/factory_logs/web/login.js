/** The login: username and password, or a pasted token. */

import * as api from "./api.js";
import { button, element, labelled } from "./dom.js";
import * as session from "./session.js";

export function loginForm() {
  const problem = element("p", { class: "error", role: "alert", hidden: session.endReason() === null }, session.endReason());
  const user = element("input", { name: "username", autocomplete: "username", required: true, maxlength: 255 });
  const password = element("input", { name: "password", type: "password", autocomplete: "current-password", required: true, maxlength: 1024 });
  const token = element("input", { name: "token", type: "password", autocomplete: "off", required: true, spellcheck: "false" });

  const attempt = (/** @type {HTMLButtonElement} */ pressed, /** @type {() => Promise<void>} */ act) => async (/** @type {Event} */ event) => {
    event.preventDefault();
    problem.hidden = true;
    pressed.disabled = true;
    try {
      await act();
    } catch (error) {
      problem.textContent = error instanceof Error ? error.message : String(error);
      problem.hidden = false;
    } finally {
      pressed.disabled = false;
    }
  };
  const byPassword = element("button", { type: "submit", class: "primary" }, "Log in");
  const byToken = element("button", { type: "submit", class: "primary" }, "Use this token");
  const passwordForm = element(
    "form", {
      submit: attempt(byPassword, async () => {
        const body = JSON.stringify({ username: user.value, password: password.value });
        const headers = { "Content-Type": "application/json" };
        const response = await api.send(api.buildUrl("v1/auth/login"), { method: "POST", body, headers });
        const { message } = await response.json();
        session.begin(message.login_successful.API_token, message.login_successful.username);
      }),
    },
    labelled("User", user), labelled("Password", password), byPassword,
  );
  const tokenForm = element(
    "form", {
      hidden: true,
      submit: attempt(byToken, async () => {
        const text = token.value.trim().replace(/^(Authorization:\s*)?(Token|Bearer)\s+/i, "").replace(/^token=/i, "").replaceAll('"', "");
        if (!/^[\x21-\x7e]+$/.test(text)) throw new Error("A token is letters and digits without spaces.");
        // Make one call with the same permission as the views, so that a wrong token is an error here.
        await api.send(api.buildUrl("v1/factory_logs", { results_per_page: 1, q: { limit: 1 } }), { headers: { Authorization: `Token token=${text}` } });
        session.begin(text, "");
      }),
    },
    labelled("Token", token),
    element("p", { class: "hint" }, "From ", element("code", {}, "factory-logs tokens issue NAME"), ". It is stored for this tab only. Logging out here does not end the token."),
    byToken,
  );
  const other = button("Use a token instead", () => {
    const pasting = !passwordForm.hidden;
    passwordForm.hidden = pasting;
    tokenForm.hidden = !pasting;
    other.textContent = pasting ? "Use a user and password instead" : "Use a token instead";
    problem.hidden = true;
    (pasting ? token : user).focus();
  }, { class: "link" });
  return element(
    "main", { class: "login" },
    element("div", { class: "card" },
      element("h1", {}, "Factory Logs"),
      element("p", { class: "hint" }, "Log in to see the logs, yields and failures."),
      problem, passwordForm, tokenForm, other),
  );
}

/** Log out; on the server too if the token came from a login on this page. */
export async function logout() {
  if (session.username() !== "") {
    try {
      await api.send(api.buildUrl("v1/auth/logout"), { method: "POST" });
    } catch (error) {
      session.end(`The service could not end the token, so it stays valid until it expires: ${error instanceof Error ? error.message : error}`);
      return;
    }
  }
  session.end("You are logged out.");
}
