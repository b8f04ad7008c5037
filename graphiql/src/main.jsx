import "./nonce.js";
import "./workers.js";
import "./style.css";
import { createRoot } from "react-dom/client";
import { App } from "./app.jsx";

createRoot(document.getElementById("graphiql")).render(<App />);
