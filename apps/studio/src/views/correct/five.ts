/** The five queries around a correction: what is suggested, and what the address says instead. */
import { useQuery } from '@tanstack/react-query';
import { json } from '../../api/client.ts';
import { rephrasedPicture } from '../../api/pictures.ts';
import { type Listing, type QueryKind, queryKinds } from '../../api/types.ts';
import { usePlace } from '../../app/location.ts';
import type { Subject } from '../../app/subject.ts';

export interface FiveQuery {
  kind: QueryKind;
  prompt: string;
  picture: string | undefined;
}

interface Suggestion {
  kind: QueryKind;
  prompt: string;
  image: string | null;
}

export const hasPicture = (kind: QueryKind): boolean => kind !== 'textLocality';

/** Suggestions of the server, with a changed copy of the picture where it knows no other picture of the same. */
export function useSuggestions({ base, picture, prompt }: Subject) {
  return useQuery({
    queryKey: ['suggestions', base, picture, prompt],
    queryFn: async ({ signal }) => {
      const body = { model: base, prompt, ...(picture === undefined ? {} : { image: picture }) };
      const { data } = await json<Listing<Suggestion>>('/v1/suggestions', { method: 'POST', body, signal });
      return Promise.all(
        queryKinds.map(async (kind): Promise<FiveQuery> => {
          const found = data.find((one) => one.kind === kind);
          const image =
            found?.image ?? (kind === 'modalGenerality' && picture !== undefined ? await rephrasedPicture(picture) : undefined);
          return { kind, prompt: found?.prompt ?? prompt ?? '', picture: hasPicture(kind) ? image : undefined };
        }),
      );
    },
    enabled: base !== undefined && prompt !== undefined && picture !== undefined,
    staleTime: Number.POSITIVE_INFINITY,
  });
}

/** The names of a query's prompt and picture in the address. */
export const promptName = (kind: QueryKind): string => `${kind}.prompt`;
export const pictureName = (kind: QueryKind): string => `${kind}.picture`;

export function useFive(suggested: readonly FiveQuery[] | undefined): readonly FiveQuery[] | undefined {
  const { params } = usePlace();
  return suggested?.map(({ kind, prompt, picture }) => ({
    kind,
    prompt: params.get(promptName(kind)) ?? prompt,
    picture: params.get(pictureName(kind)) ?? picture,
  }));
}
