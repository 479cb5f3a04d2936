import tseslint from "typescript-eslint";

export default tseslint.config({ ignores: ["dist", "eslint.config.js"] }, ...tseslint.configs.strictTypeChecked, {
  languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
  rules: {
    "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
    "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
    eqeqeq: ["error", "always", { null: "ignore" }], // == null is: neither undefined nor null
  },
});
