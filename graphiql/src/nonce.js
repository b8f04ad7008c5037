// The page's policy admits <style> elements only with the nonce of this very response. Monaco and the dialogs make such
// elements as they go, and know no nonces.
const { nonce } = document.querySelector("meta[name=csp-nonce]");
const createElement = document.createElement;

document.createElement = function (...parameters) {
  const element = createElement.apply(this, parameters);
  if (element instanceof HTMLStyleElement) element.nonce = nonce;
  return element;
};
