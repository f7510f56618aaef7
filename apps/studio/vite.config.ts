import { fileURLToPath } from 'node:url';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  root: here('.'),
  plugins: [react()],
  resolve: { alias: { 'visedit/figures': here('../../src/figures/drawings.ts') } },
  build: {
    outDir: here('dist'),
    emptyOutDir: true,
    // Inlined files would be data: addresses, which the page's content policy allows for pictures only.
    assetsInlineLimit: 0,
    // The charts' library is one large part of its own, loaded when the first chart is drawn.
    chunkSizeWarningLimit: 1200,
  },
  server: { proxy: { '/v1': 'http://127.0.0.1:8080' } },
});
