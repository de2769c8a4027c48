/** The token: stored in sessionStorage, for this tab only, and sent in a header, never in a URL. */

const TOKEN = "factory-logs-token";
const USER = "factory-logs-user";

/** @type {string | null} */
let reason = null;

export function token() {
  return sessionStorage.getItem(TOKEN);
}

/** The user who logged in; empty if the token was pasted. */
export function username() {
  return sessionStorage.getItem(USER) ?? "";
}

/**
 * @param {string} text
 * @param {string} user empty if the token was pasted; logging out does not revoke a pasted token
 */
export function begin(text, user) {
  sessionStorage.setItem(TOKEN, text);
  sessionStorage.setItem(USER, user);
  reason = null;
  dispatchEvent(new Event("session"));
}

/** Delete the token. @param {string | null} why shown at the login */
export function end(why) {
  if (token() === null) return;
  sessionStorage.removeItem(TOKEN);
  sessionStorage.removeItem(USER);
  reason = why;
  dispatchEvent(new Event("session"));
}

export function endReason() {
  return reason;
}
