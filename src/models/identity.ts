/** Names for functions, by which what is built with them is found again. */

const names = new WeakMap<object, number>();
let next = 1;

/** A number that this function alone has. */
export function identityOf(of: object): number {
  let name = names.get(of);
  if (name === undefined) {
    name = next++;
    names.set(of, name);
  }
  return name;
}
