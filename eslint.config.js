import js from "@eslint/js";
import globals from "globals";

/** What would put text into the page as markup, or run it: a log's value must never come there. */
const markup = ["innerHTML", "outerHTML", "insertAdjacentHTML", "srcdoc", "write", "writeln"].map((property) => ({
  property,
  message: "Text becomes a node by element() or svg() of dom.js, never markup.",
}));

export default [
  js.configs.recommended,
  {
    files: ["src/factory_logs/web/**/*.js"],
    languageOptions: { ecmaVersion: 2022, sourceType: "module", globals: globals.browser },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "eqeqeq": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-var": "error",
      "prefer-const": "error",
      "no-restricted-properties": ["error", ...markup],
    },
  },
];
