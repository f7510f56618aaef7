/** Another JSON text near one: a value replaced, moved, removed, renamed, wrapped, or taken from elsewhere. */
import type { Random } from '../../src/random.ts';

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** Values that readers trip over. */
const values =
  '[null,true,false,0,-1,1,2,0.5,-0.5,1e9,2147483648,4294967296,9007199254740993,1e300,"","a","0","-1","1e9","NaN","\\u0000","\\ud800","../a","/dev/zero",[],{},[[]],[null],[0,0],{"":0},{"length":4294967295},{"toString":1},{"__proto__":{}},"data:image/png;base64,","\\u001b[2J"]';
const known = JSON.parse(values) as Json[];

/** A value's place: in a list or an object. */
interface Place {
  inside: Json[] | { [key: string]: Json };
  key: string;
}
const MOST_PLACES = 1000;

/** @returns undefined for a text that is not JSON */
export function changedJson(text: string, other: string, words: readonly string[], random: Random): string | undefined {
  const root = parsed(text);
  if (root === undefined) return undefined;
  const outside: Json[] = [root];
  const places = placesIn(outside);
  const { inside, key } = places[random.int(places.length)]!;
  const value = Reflect.get(inside, key) as Json;
  const put = (to: Json): unknown =>
    Object.defineProperty(inside, key, { value: to, enumerable: true, writable: true, configurable: true });
  const elsewhere = (among: readonly Place[]): Json => {
    const place = among[random.int(among.length)]!;
    return Reflect.get(place.inside, place.key) as Json;
  };
  const word = (): string => (words.length === 0 ? '' : words[random.int(words.length)]!);
  switch (random.int(9)) {
    case 0:
    case 1:
      put(known[random.int(known.length)]!);
      break;
    case 2:
      if (Array.isArray(inside)) inside.splice(Number(key), 1);
      else delete inside[key];
      break;
    case 3:
      put(structuredClone(elsewhere(places)));
      break;
    case 4: {
      const theirs = parsed(other.slice(Math.max(0, other.search(/[[{]/))));
      if (theirs !== undefined) put(elsewhere(placesIn([theirs])));
      break;
    }
    case 5:
      put(word());
      break;
    case 6:
      if (Array.isArray(inside)) inside.push(structuredClone(value));
      else inside[word()] = structuredClone(elsewhere(places));
      break;
    case 7:
      if (typeof value === 'number') put(value * [-1, 0.5, 2, 1000][random.int(4)]! + random.int(3) - 1);
      else if (typeof value === 'string') put(value.slice(0, random.int(value.length + 1)) + word());
      else put([value]);
      break;
    default:
      put({ [word()]: value });
  }
  return JSON.stringify(outside[0] ?? null);
}

/** Of a text with so many lists and objects that printing it may fill the stack: undefined. */
function parsed(text: string): Json | undefined {
  if ((text.match(/[[{]/g)?.length ?? 0) > MOST_PLACES) return undefined;
  try {
    return JSON.parse(text) as Json;
  } catch {
    return undefined;
  }
}

function placesIn(outside: Json[]): Place[] {
  const found: Place[] = [];
  const waiting: Place['inside'][] = [outside];
  for (let inside = waiting.pop(); inside !== undefined && found.length < MOST_PLACES; inside = waiting.pop())
    for (const [key, value] of Object.entries(inside)) {
      found.push({ inside, key });
      if (typeof value === 'object' && value !== null) waiting.push(value);
    }
  return found;
}
