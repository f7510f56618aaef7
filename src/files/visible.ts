/**
 * Text that is fit for a terminal: names and answers come from files that others wrote, and control characters in them would move the cursor,
 * clear the screen or turn the reading order. They are written as \uXXXX, which JSON reads back as what they were; lines and tabs stay.
 */

/** Control characters but tab and newline, and those that turn the reading order. */
const unseen = /(?![\t\n])[\p{Cc}\u202a-\u202e\u2066-\u2069]|\p{Cs}/gu;

export const visible = (text: string): string =>
  text.replace(unseen, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
