/**
 * Fetches pictures from other machines, and only from hosts that the operator named. A name must not lead to an address of this machine or of a
 * private network. Each name is looked up once, and the connection goes to the address that was checked. A redirect must stay on the list.
 */

import { lookup } from 'node:dns/promises';
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { BlockList, isIP, isIPv4, isIPv6 } from 'node:net';
import { ApiError } from '../errors.ts';
import { type HostName, lists } from '../http/host.ts';

const redirects = 3;
const seconds = 10;

/** Networks without public addresses (IANA's special-purpose registries). The IPv6 ones lie inside 2000::/3; no IPv6 address outside is public. */
const special = new BlockList();
for (const net of [
  ...[
    '0.0.0.0/8',
    '10.0.0.0/8',
    '100.64.0.0/10',
    '127.0.0.0/8',
    '169.254.0.0/16',
    '172.16.0.0/12',
    '192.0.0.0/24',
    '192.0.2.0/24',
  ],
  ...['192.88.99.0/24', '192.168.0.0/16', '198.18.0.0/15', '198.51.100.0/24', '203.0.113.0/24', '224.0.0.0/4', '240.0.0.0/4'],
  ...['2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20'],
]) {
  const [address, bits] = net.split('/') as [string, string];
  special.addSubnet(address, Number(bits), isIPv6(address) ? 'ipv6' : 'ipv4');
}
const unicast = new BlockList();
unicast.addSubnet('2000::', 3, 'ipv6');

/** Whether an address belongs to this machine or a private network; IPv4 written as IPv6 counts as IPv4. */
export function isInward(address: string): boolean {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1] ?? address;
  if (isIPv4(mapped)) return special.check(mapped, 'ipv4');
  return !isIPv6(address) || address.includes('%') || !unicast.check(address, 'ipv6') || special.check(address, 'ipv6');
}

const refuse = (message: string, param: string | undefined): ApiError =>
  new ApiError(400, 'image_url_refused', message, { param });

/** The address to connect to. @throws ApiError when the host is not on the list, or its name leads inward; an address on the list may be inward */
async function addressOf(
  url: URL,
  allowed: readonly HostName[],
  param: string | undefined,
): Promise<{ address: string; family: number }> {
  if (url.protocol !== 'https:' && url.protocol !== 'http:')
    throw refuse(`pictures come from http or https addresses, not from ${url.protocol}`, param);
  if (url.username !== '' || url.password !== '') throw refuse('the address of a picture must hold no name or password', param);
  if (!lists(allowed, url))
    throw refuse(
      allowed.length === 0
        ? 'this server fetches no pictures from other machines; send the picture as a data URL'
        : `this server fetches no pictures from ${url.host}; send the picture as a data URL`,
      param,
    );
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const family = isIP(host);
  if (family !== 0) return { address: host, family };
  const found = await lookup(host, { all: true }).catch(() => []);
  const first = found[0];
  if (first === undefined) throw refuse(`the host ${host} of the picture is not known`, param);
  if (found.some(({ address }) => isInward(address)))
    throw refuse(`the host ${host} of the picture leads to an address of this machine or of a private network`, param);
  return first;
}

/**
 * The bytes of a picture.
 * @param allowed hosts, with a port or without
 * @throws ApiError when the host is not allowed, or sends no picture within the limits
 */
export async function fetchPicture(
  from: string,
  {
    allowed,
    maxBytes,
    signal,
    param,
  }: { allowed: readonly HostName[]; maxBytes: number; signal: AbortSignal; param?: string | undefined },
): Promise<Uint8Array> {
  let url = parse(from, param);
  for (let hop = 0; hop <= redirects; hop++) {
    const { address, family } = await addressOf(url, allowed, param);
    const answer = await get(url, address, family, maxBytes, signal, param);
    if (answer instanceof Uint8Array) return answer;
    url = parse(answer, param, url);
  }
  throw refuse(`${from} leads on more than ${redirects} times`, param);
}

function parse(text: string, param: string | undefined, base?: URL): URL {
  try {
    return new URL(text, base);
  } catch {
    throw refuse('this is not the address of a picture; send the picture as a data URL', param);
  }
}

/** The body, or the address that a redirect names. */
function get(
  url: URL,
  address: string,
  family: number,
  maxBytes: number,
  signal: AbortSignal,
  param: string | undefined,
): Promise<Uint8Array | string> {
  return new Promise((resolve, reject) => {
    const fail = (message: string): void => reject(refuse(message, param));
    const begin = url.protocol === 'https:' ? requestHttps : requestHttp;
    const request = begin(url, {
      signal,
      timeout: seconds * 1000,
      headers: { accept: 'image/*', 'user-agent': 'visedit' },
      // The name is not looked up again: it could lead elsewhere by now.
      lookup: (_host, options, done) =>
        options.all
          ? done(null, [{ address, family }])
          : (done as (e: null, a: string, f: number) => void)(null, address, family),
    });
    const late = setTimeout(() => request.destroy(new Error('late')), 2 * seconds * 1000);
    request.on('timeout', () => request.destroy(new Error('late')));
    request.on('close', () => clearTimeout(late));
    request.on('error', (error) => {
      if (signal.aborted) reject(signal.reason as Error);
      else
        fail(error.message === 'late' ? `${url.host} sent no picture in time` : `the picture cannot be fetched from ${url.host}`);
    });
    request.on('response', (response) => {
      const { statusCode = 0, headers } = response;
      if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined) {
        response.destroy();
        resolve(headers.location);
        return;
      }
      if (statusCode !== 200) {
        response.destroy();
        fail(`${url.host} answered ${statusCode} instead of a picture`);
        return;
      }
      const chunks: Buffer[] = [];
      let size = 0;
      response.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size > maxBytes) {
          response.destroy();
          fail(`the picture from ${url.host} has more than ${maxBytes} bytes`);
        } else chunks.push(chunk);
      });
      response.on('end', () => resolve(Buffer.concat(chunks)));
      response.on('error', () => fail(`${url.host} stopped in the middle of the picture`));
    });
    request.end();
  });
}
