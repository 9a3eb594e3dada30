/** Starts the page: a token first, then the parts, then the live connection that keeps them true. */

import { Api, ApiError, words } from './api';
import { nameOf, type App } from './app';
import { eachFrame, h } from './dom';
import { House } from './house';
import { Live } from './live';
import type { Denial, Job, PlayEvent, Track } from './model';
import { Player, warmUp } from './player/engine';
import { DenialBoard, PlayBoard } from './plays';
import { forgetToken, listenerId, setToken, takeToken } from './session';
import type { ServerEvent } from './sse';
import { Library } from './store';
import { isInParts } from './model';
import { fingerprint, sendParts } from './parts';
import { send } from './transfer';
import { UploadQueue } from './uploads';
import { Dialogs } from './views/dialogs';
import { Shell } from './views/shell';
import { signIn } from './views/sign-in';

const TOPICS = ['tracks', 'jobs', 'plays', 'denials'];

const root = document.getElementById('app');
if (!root) throw new Error('The page has no #app element.');

function ask(refused: string | null): void {
  root?.replaceChildren(
    signIn(refused, (token) => {
      setToken(token);
      location.reload();
    }),
  );
}

/** A smaller file never travels in parts, so that no upload of it is looked for. */
const MAY_BE_IN_PARTS = 5 << 20;

/** Longest that the storage may put parts together, and the pause between two looks. */
const TOGETHER_MS = 600_000;
const LOOK_MS = 2_000;

/** Says that the file is there, again while the storage still puts its parts together. */
async function finished(api: Api, track: string): Promise<{ track: Track; job: Job }> {
  for (const end = Date.now() + TOGETHER_MS; ; await new Promise((resolve) => setTimeout(resolve, LOOK_MS))) {
    try {
      return await api.uploaded(track);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 503 || Date.now() > end) throw error;
    }
  }
}

function start(token: string): void {
  const api = new Api(token, (error) => {
    live.stop();
    house.stop();
    app.player.unload();
    forgetToken();
    ask(error.message);
  });
  const library = new Library(api);
  const dialogs = new Dialogs();
  const plays = new PlayBoard();
  const denials = new DenialBoard();
  const house = new House(api, () => render());
  const player = new Player(api, listenerId());
  const fileInput = h('input', { type: 'file', multiple: true, hidden: true, 'aria-label': 'Choose music files', 'data-testid': 'file' });
  const partSteps = {
    urls: (track: string, parts: number[]) => api.partUrls(track, parts),
    put: send,
    pause: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
  };
  const uploads = new UploadQueue(
    {
      create: async (file) => {
        const mark = fingerprint(file);
        const track = file.size > MAY_BE_IN_PARTS ? await api.brokenOff(mark) : undefined;
        if (!track) return api.create(file, mark);
        return { track: await api.track(track), upload: await api.parts(track) };
      },
      again: async (track) => ({ track: await api.track(track), upload: await api.parts(track) }),
      send: (track, upload, file, onProgress, signal) =>
        isInParts(upload)
          ? sendParts(partSteps, track, upload, file, onProgress, signal)
          : send(upload, file, onProgress, signal),
      finish: (track) => finished(api, track),
      remove: (track) => api.remove(track),
    },
    {
      onChange: () => render(),
      asking: () => library.ask(),
      onTrack: (track, asked) => library.answered(track, asked),
      onJob: (job) => library.putJob(job),
      onRemoved: (track) => library.drop(track),
    },
  );
  const app: App = { api, library, uploads, player, plays, denials, house, dialogs, chooseFiles: () => fileInput.click() };
  const add = (files: File[]) => {
    if (uploads.add(files) > 0 && location.hash !== '' && location.hash !== '#/') location.hash = '#/';
  };
  const shell = new Shell(app, fileInput, add);
  const render = eachFrame(() => shell.render());

  fileInput.addEventListener('change', () => {
    add([...(fileInput.files ?? [])]);
    // The same file may be chosen again after a failure.
    fileInput.value = '';
  });
  library.watch(() => {
    const playing = player.state.track && library.get(player.state.track.track);
    if (playing && playing !== player.state.track) player.refresh(playing);
    render();
  });
  player.watch(render);
  addEventListener('keydown', (event) => {
    if (event.key === '/' && !(event.target instanceof HTMLInputElement) && shell.library.focusFilter()) event.preventDefault();
    else shell.player.onKey(event);
  });
  addEventListener('beforeunload', (event) => {
    if (uploads.busy()) event.preventDefault();
  });

  const announce = (before: Track | undefined, now: Track): void => {
    if (!before || before.status === now.status) return;
    if (now.status === 'ready') dialogs.announce(`${nameOf(now)} is ready to play.`);
    if (now.status === 'transcoding') dialogs.announce(`${nameOf(now)} is being transcoded.`);
  };

  const onEvent = (event: ServerEvent): void => {
    let data: unknown;
    try {
      data = JSON.parse(event.data);
    } catch {
      return;
    }
    switch (event.event) {
      case 'track':
        announce(library.get((data as Track).track), data as Track);
        library.told(data as Track);
        break;
      case 'track-deleted': {
        const { track } = data as { track: string };
        if (player.state.track?.track === track) player.unload();
        library.drop(track);
        break;
      }
      case 'job':
        library.putJob(data as Job);
        break;
      case 'play':
        plays.apply(data as PlayEvent);
        library.refresh((data as PlayEvent).track);
        shell.track?.onPlay(data as PlayEvent);
        shell.traffic?.soon();
        house.soon();
        break;
      case 'denial':
        denials.apply(data as Denial);
        shell.traffic?.soon();
        house.soon();
        break;
      case 'lagged':
        // Events were lost on the way to this page: the list makes up for them.
        void library.relist().catch(() => undefined);
        break;
    }
    render();
  };
  const live = new Live({
    api,
    topics: TOPICS,
    relist: async () => {
      await library.relist();
      shell.track?.readStatsSoon();
      shell.traffic?.soon();
      void house.read();
    },
    onEvent,
    onState: (state) => shell.setLive(state),
  });

  root?.replaceChildren(shell.element);
  shell.render();
  live.run().catch((error: unknown) => dialogs.toast(words(error), 'error'));
  const idle = globalThis.requestIdleCallback ?? ((work: () => void) => setTimeout(work, 800));
  idle(() => {
    // Not fatal here: the first play tries again, and says so if it cannot.
    warmUp().catch(() => undefined);
  });
}

const token = takeToken();
if (token) start(token);
else ask(null);
// A link with another token, opened in a tab that is here already.
addEventListener('hashchange', () => {
  if (location.hash.includes('token=')) {
    takeToken();
    location.reload();
  }
});
