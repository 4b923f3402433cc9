// The first page: pairs this device, or says that it is paired.
const find = (id) => document.getElementById(id);
const form = find("pair");

async function ask(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body ? { "content-type": "application/json" } : {},
    body: body && JSON.stringify(body),
  });
  const content = answer.status === 204 ? {} : await answer.json();
  if (!answer.ok) throw Object.assign(new Error(content.detail), { status: answer.status });
  return content;
}

// What the QR code brought. A fragment stays in the browser; it is taken out of the address, so
// that it is not bookmarked.
function takeCode() {
  const code = new URLSearchParams(location.hash.slice(1)).get("pair");
  if (code) history.replaceState(null, "", location.pathname);
  return code || "";
}

function guessName() {
  const kinds = [/iPhone/, /iPad/, /Android/, /Macintosh/, /Windows/, /Linux/];
  const kind = kinds.map((known) => navigator.userAgent.match(known)).find(Boolean);
  return kind ? kind[0].replace("Macintosh", "Mac") : "";
}

async function show() {
  let me = null;
  try {
    me = await ask("GET", "/me");
  } catch (error) {
    if (error.status !== 401) find("trouble").textContent = error.message;
  }
  find("stranger").hidden = Boolean(me) && !form.elements.code.value;
  find("friend").hidden = !me;
  if (!me) return;
  find("name").textContent = me.name;
  find("scope").textContent = me.scope === "own" ? "(an owner's)" : "";
  const [kind, id] = me.client.split(":");
  find("how").textContent = kind === "token" ? "This device is paired:" : "No token is needed on";
  find("leave").hidden = kind !== "token";
  find("leave").onclick = async () => {
    await ask("DELETE", `/tokens/${id}`);
    show();
  };
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  find("trouble").textContent = "";
  button.disabled = true;
  try {
    await ask("POST", "/pair", Object.fromEntries(new FormData(form)));
    form.elements.code.value = "";
  } catch (error) {
    find("trouble").textContent = error.message;
  }
  button.disabled = false;
  await show();
});

form.elements.name.value = guessName();
const arrive = () => {
  const code = takeCode();
  if (code) form.elements.code.value = code;
  show();
};
window.addEventListener("hashchange", () => location.hash && arrive());
arrive();
