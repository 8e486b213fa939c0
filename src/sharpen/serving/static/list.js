"use strict";
// The list of runs: choose some, and look at them together.
(() => {
  const button = document.getElementById("compare");
  const chosen = () => [...document.querySelectorAll("input[name=run]:checked")].map((box) => box.value);

  function update() {
    const count = chosen().length;
    button.disabled = count < 2;
    button.textContent = count < 2 ? "Compare the chosen" : `Compare ${count} runs`;
  }

  button.addEventListener("click", () => {
    location.assign(`/compare?${chosen().map((id) => `run=${id}`).join("&")}`);
  });
  document.addEventListener("change", update);
  // A browser that goes back shows the boxes as they were.
  addEventListener("pageshow", update);

  try {
    const theme = localStorage.getItem("sharpen-theme");
    if (["light", "dark"].includes(theme)) document.documentElement.dataset.theme = theme;
  } catch {
    // Without storage the colours are the system's.
  }
})();
