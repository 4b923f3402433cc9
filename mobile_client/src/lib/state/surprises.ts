/** Example prompts, in English because the text encoders are. */

const SUBJECTS = [
  "a red fox",
  "a smiling octopus",
  "a sleeping cat",
  "an owl",
  "a green dragon",
  "a robot",
  "a snail",
  "a whale",
  "a honeybee",
  "a hedgehog",
  "a unicorn",
  "a bowl of ramen",
  "a slice of strawberry cake",
  "a ripe avocado",
  "a steaming teapot",
  "a red mushroom",
  "a potted cactus",
  "a maple leaf",
  "a bouquet of tulips",
  "a crescent moon",
  "a snow-covered mountain",
  "a rainbow",
  "a hot air balloon",
  "a sailing boat",
  "a steam locomotive",
  "a lighthouse",
  "a crystal ball",
  "an old camera",
  "a violin",
  "a treasure map",
];

const BACKGROUNDS = [
  "teal",
  "lavender",
  "mint green",
  "sunset orange",
  "sky blue",
  "cream",
  "pink",
];

/** An example prompt other than `before`: one of the model's own, if it has any. */
export function surprise(
  before: string,
  examples: readonly string[] = [],
  random: () => number = Math.random,
): string {
  const pick = (list: readonly string[]) => list[Math.floor(random() * list.length)] ?? list[0];
  for (;;) {
    const prompt =
      examples.length > 1
        ? pick(examples)
        : `${pick(SUBJECTS)} on a ${pick(BACKGROUNDS)} background`;
    if (prompt !== undefined && prompt !== before) return prompt;
  }
}
