// Light or dark, for pages that need nothing else.
const button = document.getElementById("theme");
button.addEventListener("click", theme.turn);
document.addEventListener("keydown", (event) => { if (event.key.toLowerCase() === "t" && !event.ctrlKey && !event.metaKey && !event.altKey) button.click(); });
document.documentElement.dataset.complete = "yes";
