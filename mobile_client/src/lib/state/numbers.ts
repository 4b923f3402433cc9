/**
 * Numeric settings that need only a slider in Advanced. A new one takes a row here and a label
 * `create.<name>` in each language.
 */
export const NUMBERS = [
  { name: "guidance_rescale", min: 0, max: 1, step: 0.05, usual: 0 },
] as const;

export type NumberSetting = (typeof NUMBERS)[number];
export type NumberName = NumberSetting["name"];
/** The values that differ from the usual ones. */
export type Numbers = Partial<Record<NumberName, number>>;

/** The values of a request that differ from the usual ones. */
export function numbersOf(request: Readonly<Record<string, unknown>>): Numbers {
  const found: Numbers = {};
  for (const { name, usual } of NUMBERS) {
    const value = request[name];
    if (typeof value === "number" && value !== usual) found[name] = value;
  }
  return found;
}
