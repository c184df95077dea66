// Names and keyboard access that the theme's parts lack; nothing is fetched.
const mend = () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  document.querySelectorAll(".md-code__nav").forEach((part, n) => part.setAttribute("aria-label", `Code block ${n + 1}`));
  document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code, .doc-signature pre").forEach((part) => {
    if (part.scrollWidth > part.clientWidth) part.setAttribute("tabindex", "0");
  });
  document.querySelectorAll(".md-typeset th").forEach((head) => {
    if (!head.textContent.trim()) head.replaceWith(document.createElement("td"));
  });
};
mend();
new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
