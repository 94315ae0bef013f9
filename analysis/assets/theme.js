// Light or dark, for pages that need nothing else.
const button = document.getElementById("theme");
button.addEventListener("click", () => {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
});
document.addEventListener("keydown", (event) => { if (event.key.toLowerCase() === "t" && !event.ctrlKey && !event.metaKey && !event.altKey) button.click(); });
document.documentElement.dataset.complete = "yes";
