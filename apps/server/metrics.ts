/** What an operator watches, for Prometheus. */

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

export interface Watched {
  running(): number;
  waiting(): number;
  edits(): { enabled: number; disabled: number };
  jobs(): number;
  engineFailures(): number;
}

export class Metrics {
  readonly registry = new Registry();
  readonly #requests: Counter<'method' | 'route' | 'status'>;
  readonly #seconds: Histogram<'method' | 'route'>;
  readonly #tokens: Counter<'model' | 'kind'>;
  readonly #work: Histogram<'task'>;

  constructor(watched: Watched) {
    const registers = [this.registry];
    collectDefaultMetrics({ register: this.registry });
    this.#requests = new Counter({
      name: 'visedit_http_requests_total',
      help: 'requests answered',
      labelNames: ['method', 'route', 'status'],
      registers,
    });
    this.#seconds = new Histogram({
      name: 'visedit_http_request_seconds',
      help: 'time from a request to the end of its answer',
      labelNames: ['method', 'route'],
      buckets: [0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300],
      registers,
    });
    this.#tokens = new Counter({
      name: 'visedit_tokens_total',
      help: 'tokens read and said',
      labelNames: ['model', 'kind'],
      registers,
    });
    this.#work = new Histogram({
      name: 'visedit_engine_seconds',
      help: 'time in the engine, without waiting',
      labelNames: ['task'],
      buckets: [0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300],
      registers,
    });
    const gauge = (name: string, help: string, read: () => number): void => {
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(read());
        },
      });
    };
    gauge('visedit_queue_running', 'requests that the engine works on', watched.running);
    gauge('visedit_queue_waiting', 'requests that wait for the engine', watched.waiting);
    gauge('visedit_jobs', 'jobs that are not finished', watched.jobs);
    gauge('visedit_engine_failures_total', 'engine threads that died', watched.engineFailures);
    new Gauge({
      name: 'visedit_edits',
      help: 'edits kept',
      labelNames: ['state'],
      registers,
      collect() {
        for (const [state, count] of Object.entries(watched.edits())) this.set({ state }, count);
      },
    });
  }

  request(method: string, route: string, status: number, seconds: number): void {
    this.#requests.inc({ method, route, status });
    this.#seconds.observe({ method, route }, seconds);
  }

  tokens(model: string, prompt: number, completion: number): void {
    this.#tokens.inc({ model, kind: 'prompt' }, prompt);
    this.#tokens.inc({ model, kind: 'completion' }, completion);
  }

  work(task: string, seconds: number): void {
    this.#work.observe({ task }, seconds);
  }
}
