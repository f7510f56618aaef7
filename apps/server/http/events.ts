/** Server-sent events. */

const heartbeatSeconds = 15;

export interface EventSink {
  /** false: nobody listens any more */
  readonly open: boolean;
  event(data: unknown, name?: string): void;
  /** a line as it is, as OpenAI's `[DONE]` */
  raw(data: string): void;
}

/**
 * A response that tells events until `tell` ends.
 * @param onLeave called when the client leaves before that
 */
export function eventStream(
  tell: (sink: EventSink) => Promise<void>,
  onLeave: () => void,
  headers: Record<string, string> = {},
): Response {
  const encoder = new TextEncoder();
  let open = true;
  let heart: NodeJS.Timeout | undefined;
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const send = (text: string): void => {
        if (open) controller.enqueue(encoder.encode(text));
      };
      const sink: EventSink = {
        get open() {
          return open;
        },
        event: (data, name) => send(`${name === undefined ? '' : `event: ${name}\n`}data: ${JSON.stringify(data)}\n\n`),
        raw: (data) => send(`data: ${data}\n\n`),
      };
      // Proxies close connections on which nothing is said.
      heart = setInterval(() => send(': still here\n\n'), heartbeatSeconds * 1000);
      heart.unref();
      tell(sink).then(
        () => {
          clearInterval(heart);
          if (open) controller.close();
          open = false;
        },
        (error: unknown) => {
          clearInterval(heart);
          if (open) controller.error(error);
          open = false;
        },
      );
    },
    cancel() {
      open = false;
      clearInterval(heart);
      onLeave();
    },
  });
  return new Response(body, {
    headers: {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
      ...headers,
    },
  });
}
