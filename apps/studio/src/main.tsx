import './app/mantine.css';
import './app/app.css';
import './parts/parts.css';
import './views/views.css';
import './app/narrow.css';
import { MantineProvider } from '@mantine/core';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { ApiError, isUnreachable } from './api/client.ts';
import { followTabs } from './api/queries.ts';
import { Shell } from './app/shell.tsx';
import { theme, variables } from './app/theme.ts';
import { View } from './app/view.tsx';

const client = new QueryClient({
  defaultOptions: {
    queries: {
      // A refusal will not change by asking again; a full queue will.
      retry: (failures, error) => error instanceof ApiError && error.status === 429 && failures < 4,
      retryDelay: (attempt) => 1000 * 2 ** attempt,
      refetchOnWindowFocus: false,
      // While the server is away, what could not be read is asked for again until it answers.
      refetchInterval: ({ state }) => (isUnreachable(state.error) ? 3000 : false),
    },
  },
});
followTabs(client);

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <MantineProvider theme={theme} cssVariablesResolver={variables} defaultColorScheme="auto">
      <QueryClientProvider client={client}>
        <Shell>
          <View />
        </Shell>
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
);
