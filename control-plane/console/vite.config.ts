import { defineConfig } from 'vite';

// The build is embedded in the control plane's binary and served under
// `default-src 'self'`, so nothing may be inlined as a data: URL (fonts have no
// exception in that policy) and nothing may be fetched from elsewhere.
export default defineConfig({
  base: './',
  build: {
    target: 'es2022',
    outDir: 'dist',
    assetsDir: 'assets',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
    // hls.js is one chunk of its own, loaded after the page is usable.
    chunkSizeWarningLimit: 700,
  },
});
