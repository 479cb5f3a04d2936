import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["node_modules", "client", "viewer", "eslint.config.js"] },
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/no-non-null-assertion": "off", // an index within bounds, where the compiler cannot know
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      eqeqeq: "error",
      "no-restricted-properties": [
        "error",
        { property: "innerHTML", message: "every text is set as text" },
        { property: "outerHTML", message: "every text is set as text" },
        { property: "insertAdjacentHTML", message: "every text is set as text" },
      ],
    },
  },
);
