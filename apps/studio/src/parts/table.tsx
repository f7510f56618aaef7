/** A sortable table of which each row opens its record. */
import { Button, Group, Text } from '@mantine/core';
import type { ReactNode } from 'react';
import { Link } from '../app/shell.tsx';

export interface Column<T> {
  /** What the server sorts by; absent: not sortable. */
  sort?: string;
  title: string;
  cell: (row: T) => ReactNode;
  number?: boolean;
  /** Left out at phone width. */
  minor?: boolean;
}

interface DataTableProps<T> {
  label: string;
  columns: readonly Column<T>[];
  rows: readonly T[];
  keyOf: (row: T) => string | number;
  /** Address of a row's record, and what its link is called. */
  open: (row: T) => string;
  openLabel: (row: T) => string;
  sort?: string | undefined;
  order?: 'asc' | 'desc';
  onSort?: (sort: string, order: 'asc' | 'desc') => void;
}

export function DataTable<T>({ label, columns, rows, keyOf, open, openLabel, sort, order = 'asc', onSort }: DataTableProps<T>) {
  return (
    <div className="scroll" role="region" aria-label={`${label}, table`} tabIndex={0}>
      <table className="data">
        <thead>
          <tr>
            {columns.map((column) => {
              const on = column.sort !== undefined && column.sort === sort;
              return (
                <th
                  key={column.title}
                  scope="col"
                  data-number={column.number}
                  data-minor={column.minor}
                  aria-sort={on ? (order === 'asc' ? 'ascending' : 'descending') : undefined}
                >
                  {column.sort !== undefined && onSort !== undefined ? (
                    <button type="button" onClick={() => onSort(column.sort!, on && order === 'asc' ? 'desc' : 'asc')}>
                      {column.title} <span aria-hidden="true">{on ? (order === 'asc' ? '↑' : '↓') : '↕'}</span>
                    </button>
                  ) : (
                    column.title
                  )}
                </th>
              );
            })}
            <th scope="col">
              <span className="unseen">Open</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={keyOf(row)}>
              {columns.map((column) => (
                <td key={column.title} data-number={column.number} data-minor={column.minor}>
                  {column.cell(row)}
                </td>
              ))}
              <td className="open">
                <Link to={open(row)}>
                  Open<span className="unseen"> {openLabel(row)}</span>
                </Link>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export const pageSize = 20;

export function Pager({ page, total, onPage }: { page: number; total: number; onPage: (page: number) => void }) {
  const pages = Math.max(1, Math.ceil(total / pageSize));
  return (
    <Group justify="space-between" mt="sm">
      <Text size="sm" c="dimmed">
        {total === 0 ? 'None' : `${page * pageSize + 1} to ${Math.min(total, (page + 1) * pageSize)} of ${total}`}
      </Text>
      <Group gap="xs">
        <Button size="xs" variant="default" disabled={page === 0} onClick={() => onPage(page - 1)}>
          Previous
        </Button>
        <Button size="xs" variant="default" disabled={page >= pages - 1} onClick={() => onPage(page + 1)}>
          Next
        </Button>
      </Group>
    </Group>
  );
}
