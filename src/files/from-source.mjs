// Lets Node read TypeScript source. tsx keeps what it translated in the system's temporary folder; here it is kept with the installed packages.
import { accessSync, constants } from 'node:fs';
import { fileURLToPath } from 'node:url';

const packages = fileURLToPath(new URL('../../node_modules', import.meta.url));
const before = { TMPDIR: process.env.TMPDIR, TEMP: process.env.TEMP, TMP: process.env.TMP };
try {
  accessSync(packages, constants.W_OK);
  for (const name of Object.keys(before)) process.env[name] = `${packages}/.cache`;
} catch {
  // a copy that cannot be written to
}
(await import('tsx/esm/api')).register();
for (const [name, value] of Object.entries(before)) {
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
}
