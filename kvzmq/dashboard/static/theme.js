// Light or dark: as the system says, until somebody chooses; the choice stays in this browser.

const KEY = "kvzmq-theme";
const system = window.matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : system.matches;
}

/** Have a function called whenever colours change. Returns what ends that. */
export function onTheme(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The value of a colour of the style sheet. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function changed(button) {
  button.dataset.dark = String(isDark());
  button.setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
  button.title = button.getAttribute("aria-label");
  for (const listener of listeners) listener();
}

export function startTheme(button) {
  let chosen = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch {
    // storage may be forbidden: the system decides then
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem(KEY, document.documentElement.dataset.theme);
    } catch {
      // as above
    }
    changed(button);
  });
  system.addEventListener("change", () => changed(button));
  changed(button);
}
