/** Seeking by keys, the same on the waveform and anywhere else on the page. */

const STEP_S = 5;
const LEAP_S = 30;

/** Where a key press leads from `at`, or null if the key is not for seeking. */
export function seekKey(key: string, at: number, duration: number): number | null {
  switch (key) {
    case 'ArrowLeft':
    case 'ArrowDown':
      return Math.max(0, at - STEP_S);
    case 'ArrowRight':
    case 'ArrowUp':
      return Math.min(duration, at + STEP_S);
    case 'PageDown':
      return Math.max(0, at - LEAP_S);
    case 'PageUp':
      return Math.min(duration, at + LEAP_S);
    case 'Home':
      return 0;
    case 'End':
      return duration;
    default:
      return null;
  }
}
