/**
 * Copies text, also on pages served over plain HTTP, where `navigator.clipboard` does not exist.
 *
 * @returns whether it worked.
 */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyFromField(text);
  }
}

function copyFromField(text: string): boolean {
  const field = document.createElement("textarea");
  field.value = text;
  field.readOnly = true; // no keyboard pops up
  field.className = "visually-hidden";
  // While a dialog is open, nothing outside it can be selected.
  const place = document.querySelector("dialog[open]") ?? document.body;
  place.append(field);
  field.select();
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    field.remove();
  }
}
