/** A picture by its reference, and the place where another one is dropped, pasted or chosen. */
import { Skeleton } from '@mantine/core';
import { type DragEvent, useEffect, useId, useRef, useState } from 'react';
import { keepPicture, usePicture } from '../api/pictures.ts';
import { report } from '../app/notes.ts';

export function Thumb({ picture, size = 56, label = '' }: { picture: string | null | undefined; size?: number; label?: string }) {
  const found = usePicture(picture);
  if (picture === null || picture === undefined)
    return (
      <div className="thumb none" style={{ width: size, height: size }}>
        no picture
      </div>
    );
  return found.data ? (
    <img className="thumb" data-coarse={found.data.width < 160} src={found.data.url} alt={label} width={size} height={size} />
  ) : (
    <Skeleton width={size} height={size} />
  );
}

interface DropProps {
  picture: string | undefined;
  onPicture: (reference: string) => void;
  label: string;
  small?: boolean;
  /** Takes what is pasted anywhere on the page. */
  paste?: boolean;
}

export function PictureDrop({ picture, onPicture, label, small = false, paste = false }: DropProps) {
  const found = usePicture(picture);
  const input = useRef<HTMLInputElement>(null);
  const [over, setOver] = useState(false);
  const [busy, setBusy] = useState(false);
  const id = useId();
  const take = async (file: Blob | undefined | null) => {
    if (!file) return;
    setBusy(true);
    try {
      onPicture(await keepPicture(file));
    } catch (error) {
      report(error, 'The picture was not taken.');
    } finally {
      setBusy(false);
    }
  };
  const newest = useRef(take);
  newest.current = take;
  useEffect(() => {
    if (!paste) return;
    const pasted = (event: ClipboardEvent) => {
      const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith('image/'));
      if (file === undefined) return;
      event.preventDefault();
      void newest.current(file);
    };
    document.addEventListener('paste', pasted);
    return () => document.removeEventListener('paste', pasted);
  }, [paste]);
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    void take(event.dataTransfer.files[0]);
  };
  return (
    <div
      className="drop"
      data-over={over}
      data-small={small}
      data-empty={picture === undefined}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={drop}
      role="group"
      aria-label={label}
    >
      {found.isError ? (
        <p className="drop-hint">This picture is no longer kept by the server. Drop it again.</p>
      ) : picture !== undefined ? (
        found.data ? (
          <img src={found.data.url} alt={label} data-coarse={found.data.width < 160} />
        ) : (
          <Skeleton height="100%" />
        )
      ) : (
        <p className="drop-hint">{small ? 'Drop a picture' : 'Drop a picture here, or paste one'}</p>
      )}
      <input
        ref={input}
        id={id}
        type="file"
        accept="image/*"
        className="unseen"
        tabIndex={-1}
        aria-label={`${label}: file`}
        onChange={(event) => {
          void take(event.currentTarget.files?.[0]);
          event.currentTarget.value = '';
        }}
      />
      <button type="button" className="drop-button" onClick={() => input.current?.click()} disabled={busy}>
        {busy ? 'Taking it …' : picture === undefined ? 'Choose a file' : small ? 'Change' : 'Another picture'}
      </button>
    </div>
  );
}
