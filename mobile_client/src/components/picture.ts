/** The id of the stored picture that a job started from, or its request names. */
export function sourceOf(
  job: { readonly request: Readonly<Record<string, unknown>> } | undefined,
): string | undefined {
  const { image, references } = (job?.request ?? {}) as { image?: unknown; references?: unknown };
  const first = Array.isArray(references) ? references[0] : image;
  return typeof first === "string" ? /^image:(.+)$/.exec(first)?.[1] : undefined;
}
