/** What the views read from the server, each under its key in the cache. */
import { keepPreviousData, type QueryClient, useQuery, useQueryClient } from '@tanstack/react-query';
import type { Figure } from 'visedit/figures';
import { type Answer, ask, type Conversation, conversationOf, type Question } from './ask.ts';
import { job, json, type Progress } from './client.ts';
import type {
  Attribution,
  Comparison,
  DataRecord,
  Dataset,
  Edit,
  Editor,
  EditSet,
  Listing,
  LogLine,
  Model,
  QueryKind,
  Run,
  RunRecord,
  ServerState,
  Tool,
} from './types.ts';

const list = async <T>(path: string, signal?: AbortSignal): Promise<T[]> => (await json<Listing<T>>(path, { signal })).data;
const forever = { staleTime: Number.POSITIVE_INFINITY, gcTime: 30 * 60_000 };

export const useModels = () =>
  useQuery({ queryKey: ['models'], queryFn: ({ signal }) => list<Model>('/v1/models', signal), staleTime: 60_000 });

export const useEditors = () =>
  useQuery({ queryKey: ['editors'], queryFn: ({ signal }) => list<Editor>('/v1/editors', signal), ...forever });

export const useServer = () =>
  useQuery({ queryKey: ['server'], queryFn: ({ signal }) => json<ServerState>('/v1/server', { signal }), staleTime: 60_000 });

export function useAnswer(question: Question | undefined, revision: number) {
  return useReply(question && conversationOf(question), revision);
}

/** Greedy, so the same conversation has the same answer until the edits change (`revision`). */
export function useReply(conversation: Conversation | undefined, revision: number) {
  const client = useQueryClient();
  const queryKey = ['answer', conversation, revision];
  return useQuery<Answer>({
    queryKey,
    queryFn: ({ signal }) => streamAnswer(client, conversation!, queryKey, signal),
    enabled: conversation !== undefined,
    ...forever,
  });
}

async function streamAnswer(
  client: QueryClient,
  conversation: Conversation,
  queryKey: unknown[],
  signal: AbortSignal,
): Promise<Answer> {
  const tokens: Answer['tokens'] = [];
  const answer = ask(conversation, signal);
  let drawn = 0;
  for (;;) {
    const next = await answer.next();
    if (next.done) return { tokens, finished: true, cut: next.value.cut };
    tokens.push(next.value);
    // Not for every token: a long answer is drawn anew each time.
    if (performance.now() - drawn < 80) continue;
    drawn = performance.now();
    client.setQueryData<Answer>(queryKey, { tokens: [...tokens], finished: false });
  }
}

export interface WhyQuestion extends Question {
  /** Ids of the answer's tokens. */
  answer: number[];
  position: number;
  /** Another key token than the answer's own. */
  key?: number | undefined;
  before?: boolean;
}

const why = ({ model, image, prompt, answer, position, key, before }: WhyQuestion) => ({
  model,
  prompt,
  ...(image === undefined ? {} : { image }),
  answer,
  position,
  ...(key === undefined ? {} : { key }),
  ...(before === true ? { before } : {}),
});

/** Modules and logit lens: one pass through the model. */
export function useReasons(question: WhyQuestion | undefined, revision: number) {
  return useQuery({
    queryKey: ['reasons', question, revision],
    queryFn: ({ signal }) =>
      json<Attribution>('/v1/attributions', {
        method: 'POST',
        body: { ...why(question!), parts: ['modules', 'lens'], top: 6 },
        signal,
      }),
    enabled: question !== undefined,
    placeholderData: keepPreviousData,
    ...forever,
  });
}

/** The probability of the explained word alone. */
export function useKeyProbability(question: WhyQuestion | undefined, revision: number) {
  return useQuery({
    queryKey: ['key probability', question, revision],
    queryFn: async ({ signal }) => {
      const body = { ...why(question!), parts: ['lens'], layers: [0], top: 1 };
      return (await json<Attribution>('/v1/attributions', { method: 'POST', body, signal })).key.probability;
    },
    enabled: question !== undefined,
    ...forever,
  });
}

export const useTools = () =>
  useQuery({ queryKey: ['tools'], queryFn: ({ signal }) => list<Tool>('/v1/tools', signal), ...forever });

/** Work that ends in a figure: a tool's, or a plan's. */
export interface FigureRequest {
  path: '/v1/explanations' | '/v1/plans';
  body: Record<string, unknown>;
}

export function useFigure(request: FigureRequest | undefined, revision: number, onProgress?: (progress: Progress) => void) {
  return useQuery({
    queryKey: ['figure', request, revision],
    queryFn: ({ signal }) =>
      job<Figure>(request!.path, { ...request!.body, format: 'figure' }, { signal, ...(onProgress ? { onProgress } : {}) }),
    enabled: request !== undefined,
    ...forever,
  });
}

export const mapsKey = (question: WhyQuestion | undefined, revision: number) => ['maps', question, revision];

/** One heat map for each layer: as many passes through its attention as noise is drawn, so it is followed as a job. */
export function useMaps(question: WhyQuestion | undefined, revision: number, onProgress?: (progress: Progress) => void) {
  return useQuery({
    queryKey: mapsKey(question, revision),
    queryFn: ({ signal }) =>
      job<Attribution>(
        '/v1/attributions',
        { ...why(question!), parts: ['visual'] },
        { signal, ...(onProgress ? { onProgress } : {}) },
      ),
    enabled: question?.image !== undefined,
    ...forever,
  });
}

export const useSets = (model: string | undefined) =>
  useQuery({
    queryKey: ['sets', model],
    queryFn: ({ signal }) => list<EditSet>(`/v1/sets?model=${encodeURIComponent(model!)}`, signal),
    enabled: model !== undefined,
  });

export const useEdits = (model: string | undefined, set?: string) =>
  useQuery({
    queryKey: ['edits', model, set],
    queryFn: async ({ signal }) => {
      const all: Edit[] = [];
      for (;;) {
        const page = { model, set, limit: 200, offset: all.length };
        const { data, total = 0 } = await json<Listing<Edit>>(`/v1/edits?${search(page)}`, { signal });
        all.push(...data);
        if (data.length === 0 || all.length >= total) return all;
      }
    },
    enabled: model !== undefined,
  });

const tabs = new BroadcastChannel('visedit-edits');

const readAgain = (client: QueryClient) =>
  Promise.all(['sets', 'edits', 'models'].map((name) => client.invalidateQueries({ queryKey: [name] })));

/** After any change of edits: what is read of them is read again, in all tabs; answers under them go by the set's revision. */
export async function editsChanged(client: QueryClient): Promise<void> {
  tabs.postMessage('changed');
  await readAgain(client);
}

/** Reads edits again when another tab has changed them. */
export function followTabs(client: QueryClient): void {
  tabs.addEventListener('message', () => void readAgain(client));
}

export interface AskedQuery {
  kind: QueryKind;
  image?: string | undefined;
  prompt: string;
  target?: string | undefined;
}

export interface ComparisonRequest {
  before: string;
  after: string;
  queries: AskedQuery[];
}

export function useComparison(
  request: ComparisonRequest | undefined,
  revision: number,
  onProgress?: (progress: Progress) => void,
) {
  return useQuery({
    queryKey: ['comparison', request, revision],
    queryFn: ({ signal }) =>
      job<Comparison>('/v1/comparisons', { ...request! }, { signal, ...(onProgress ? { onProgress } : {}) }),
    enabled: request !== undefined,
    ...forever,
  });
}

export const useDatasets = () =>
  useQuery({ queryKey: ['datasets'], queryFn: ({ signal }) => list<Dataset>('/v1/datasets', signal), ...forever });

export interface Page {
  offset: number;
  limit: number;
  [filter: string]: string | number | undefined;
}

const search = (page: Page): string => {
  const all = new URLSearchParams();
  for (const [name, value] of Object.entries(page)) if (value !== undefined && value !== '') all.set(name, String(value));
  return all.toString();
};

export const useRecords = (dataset: string | undefined, page: Page) =>
  useQuery({
    queryKey: ['records', dataset, page],
    queryFn: ({ signal }) => json<Listing<DataRecord>>(`/v1/datasets/${dataset}/records?${search(page)}`, { signal }),
    enabled: dataset !== undefined,
    placeholderData: keepPreviousData,
    staleTime: 10 * 60_000,
  });

export const useRecord = (dataset: string | undefined, index: number | undefined) =>
  useQuery({
    queryKey: ['record', dataset, index],
    queryFn: ({ signal }) => json<DataRecord>(`/v1/datasets/${dataset}/records/${index}`, { signal }),
    enabled: dataset !== undefined && index !== undefined,
    ...forever,
  });

export const useRuns = () =>
  useQuery({ queryKey: ['runs'], queryFn: ({ signal }) => list<Run>('/v1/runs', signal), refetchInterval: 15_000 });

export const useRun = (id: string | undefined) =>
  useQuery({
    queryKey: ['run', id],
    queryFn: ({ signal }) => json<Run>(`/v1/runs/${encodeURIComponent(id!)}`, { signal }),
    enabled: id !== undefined,
  });

export const useRunRecords = (id: string | undefined, page: Page) =>
  useQuery({
    queryKey: ['run-records', id, page],
    queryFn: ({ signal }) => json<Listing<RunRecord>>(`/v1/runs/${encodeURIComponent(id!)}/records?${search(page)}`, { signal }),
    enabled: id !== undefined,
    placeholderData: keepPreviousData,
  });

export const useRunLog = (id: string | undefined) =>
  useQuery({
    queryKey: ['run-log', id],
    queryFn: ({ signal }) => list<LogLine>(`/v1/runs/${encodeURIComponent(id!)}/log?points=1000`, signal),
    enabled: id !== undefined,
  });
