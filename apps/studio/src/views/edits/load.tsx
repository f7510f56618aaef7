/** An edit file is taken into a set: dropped, or chosen. */
import { Button, Group, Text, TextInput } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { type DragEvent, useEffect, useRef, useState } from 'react';
import { job } from '../../api/client.ts';
import { editsChanged, useServer } from '../../api/queries.ts';
import type { Edit } from '../../api/types.ts';
import { alter } from '../../app/location.ts';
import { Failed, Working } from '../../parts/states.tsx';

export const validSet = (name: string): boolean => /^(?!edit_)[a-z0-9][a-z0-9._-]{0,62}$/.test(name);

export function LoadEdit({ model, set }: { model: string; set: string }) {
  const [name, write] = useState(set);
  useEffect(() => write(set), [set]);
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const stopper = useRef<AbortController>(undefined);
  const server = useServer();
  const client = useQueryClient();
  const taking = useMutation({
    mutationFn: async (file: File) => {
      // In JSON, three bytes are four letters.
      const most = Math.floor(0.75 * (server.data?.limits.body_bytes ?? 32e6)) - 4096;
      if (file.size > most)
        throw new Error(
          `${file.name} has ${Math.ceil(file.size / 1e6)} MB; the server takes ${Math.floor(most / 1e6)} MB in one request. Add it to the ledger of the server’s folder with “visedit edits add”.`,
        );
      stopper.current = new AbortController();
      return job<Edit>('/v1/edits', { model, set: name, file: await dataUrl(file) }, { signal: stopper.current.signal });
    },
    onSuccess: async (made) => {
      await editsChanged(client);
      alter({ set: made.set });
    },
  });
  const take = (file: File | undefined) => {
    if (file !== undefined && validSet(name) && !taking.isPending) taking.mutate(file);
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    take(event.dataTransfer.files[0]);
  };
  return (
    <section
      className="card load"
      aria-label="Load a correction"
      data-over={over}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={drop}
    >
      <h2>Load a correction</h2>
      <Text size="sm" c="dimmed" mb="xs">
        Drop a file here that “Save file” or “visedit edit” wrote for {model}, or choose one. It is kept in the set that you name.
      </Text>
      <Group align="flex-end" gap="sm">
        <TextInput
          label="Into the set"
          value={name}
          onChange={(event) => write(event.currentTarget.value)}
          error={validSet(name) ? undefined : 'Small letters, digits, . _ and -'}
        />
        <input
          ref={input}
          type="file"
          className="unseen"
          tabIndex={-1}
          aria-label="Edit file"
          onChange={(event) => {
            take(event.currentTarget.files?.[0]);
            event.currentTarget.value = '';
          }}
        />
        <Button variant="default" disabled={!validSet(name) || taking.isPending} onClick={() => input.current?.click()}>
          Choose a file
        </Button>
      </Group>
      {taking.isPending && <Working what="Reading the file" stop={() => stopper.current?.abort()} />}
      {taking.isError && !stopper.current?.signal.aborted && <Failed what="The file was not taken." error={taking.error} />}
      {taking.isSuccess && (
        <Text size="sm" role="status" mt="xs">
          Taken: {taking.data.prompt} → {taking.data.target}
        </Text>
      )}
    </section>
  );
}

function dataUrl(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve((reader.result as string).replace(/^data:[^,]*,/, 'data:application/octet-stream;base64,'));
    reader.onerror = () => reject(new Error('The browser cannot read this file.'));
    reader.readAsDataURL(file);
  });
}
