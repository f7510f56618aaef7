/** Short messages at the edge of the page: what went wrong and what to do. */
import { create } from 'zustand';

export interface Note {
  id: number;
  text: string;
  bad: boolean;
}

export const useNotes = create<{ notes: Note[] }>(() => ({ notes: [] }));
let next = 1;

export function note(text: string, { bad = false } = {}): void {
  const id = next++;
  useNotes.setState(({ notes }) => ({ notes: [...notes.slice(-2), { id, text, bad }] }));
  setTimeout(() => dismiss(id), bad ? 12_000 : 4_000);
}

export function dismiss(id: number): void {
  useNotes.setState(({ notes }) => ({ notes: notes.filter((one) => one.id !== id) }));
}

export function report(error: unknown, what: string): void {
  if (error instanceof DOMException && error.name === 'AbortError') return;
  note(`${what} ${error instanceof Error ? error.message : String(error)}`, { bad: true });
}
