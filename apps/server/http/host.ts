/** Names of hosts in one form, whatever the notation: small letters, Punycode, addresses as URLs write them, no dot at the end. */

export interface HostName {
  readonly name: string;
  readonly port: number | undefined;
}

const parsed = (text: string): URL | undefined => (URL.canParse(text) ? new URL(text) : undefined);

const standard: Readonly<Record<string, number>> = { 'http:': 80, 'https:': 443 };

/** @throws Error when it is no name of a host with or without a port */
export function parseHost(text: string): HostName {
  const [, host = '', port] = /^(.*?)(?::(\d{1,5}))?$/.exec(text.trim()) ?? [];
  // An address of IPv6 may stand without its brackets.
  const plain = text.includes('[') || (text.match(/:/g) ?? []).length < 2;
  const url = parsed(`http://${plain ? host : `[${text.trim()}]`}/`);
  if (
    url === undefined ||
    url.href !== `http://${url.hostname}/` ||
    !/^(\[[0-9a-f:.]+\]|[\w-]+(\.[\w-]+)*\.?)$/.test(url.hostname)
  )
    throw new Error(
      `${JSON.stringify(text)} is not the name of a host; write it as images.example.org or images.example.org:8443`,
    );
  if (Number(port ?? 0) > 65_535) throw new Error(`${JSON.stringify(text)} has a port above 65535`);
  return { name: nameOf(url), port: plain && port !== undefined ? Number(port) : undefined };
}

const nameOf = ({ hostname }: URL): string => hostname.replace(/\.$/, '');

export const hostOf = (url: URL): { name: string; port: number } => ({
  name: nameOf(url),
  port: url.port === '' ? (standard[url.protocol] ?? 0) : Number(url.port),
});

/** Whether a list names the host of a URL: with its port, or without one where the URL has the usual one. */
export function lists(allowed: readonly HostName[], url: URL): boolean {
  const { name, port } = hostOf(url);
  return allowed.some(
    (one) => one.name === name && (one.port === undefined ? port === standard[url.protocol] : one.port === port),
  );
}

/** As browsers write it. @throws Error when it is no origin */
export function parseOrigin(text: string): string {
  const url = parsed(text);
  if (
    url === undefined ||
    standard[url.protocol] === undefined ||
    url.pathname !== '/' ||
    url.search !== '' ||
    url.username !== ''
  )
    throw new Error(`${JSON.stringify(text)} is not an origin; write it as https://pages.example.org`);
  return url.origin;
}
