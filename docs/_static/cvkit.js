// Names for two of the theme's buttons, for readers who do not see them.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("summary:not([aria-label])").forEach((one) => one.setAttribute("aria-label", "Show the pages below"));
  document.querySelectorAll(".version-switcher__button").forEach((one) => one.removeAttribute("aria-label"));
});
