/** Debian's Chromium, headless, with a profile of its own and no traffic of its own. */

import { chromium } from 'playwright-core';

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--autoplay-policy=no-user-gesture-required',
    ],
  });
}

/**
 * Collects what a page must not do: errors on its console, exceptions that
 * nobody caught, requests that failed. `allow` names the ones a test provokes.
 */
export function watch(page) {
  const faults = [];
  const allowed = [];
  const note = (text) => {
    if (!allowed.some((pattern) => pattern.test(text))) faults.push(text);
  };
  page.on('console', (message) => {
    if (message.type() === 'error') note(`console: ${message.text()} (${message.location().url})`);
  });
  page.on('pageerror', (error) => note(`exception: ${error.stack ?? error}`));
  return {
    allow: (pattern) => allowed.push(pattern),
    /** The faults so far; they are told once. */
    take: () => faults.splice(0),
  };
}
