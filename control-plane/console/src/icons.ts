/** Icons on a 20-unit grid, drawn in the text's colour. */

const PATHS = {
  play: ['M6.500 4.300v11.400c0 .5.560.800.980.530l8.700-5.700a.63.63 0 0 0 0-1.060l-8.700-5.700a.63.63 0 0 0-.980.530z', 'fill'],
  pause: ['M6 4h2.600v12H6zM11.400 4H14v12h-2.600z', 'fill'],
  plus: ['M10 4.500v11M4.500 10h11', 'line'],
  link: ['M8.500 11.500l3-3M9 6.500l1.300-1.300a3.200 3.200 0 0 1 4.500 4.500L13.500 11M11 13.500l-1.300 1.300a3.200 3.200 0 0 1-4.500-4.500L6.500 9', 'line'],
  trash: ['M4 6h12M8 6V4.200h4V6M5.500 6l.7 9.800h7.600l.7-9.800M8.500 9v4M11.500 9v4', 'line'],
  retry: ['M15.500 10a5.500 5.500 0 1 1-1.700-4M15.500 3.500V7H12', 'line'],
  purge: ['M4 6.500h8.500M4 10h5.500M4 13.500h3.500M12 11l4 4M16 11l-4 4', 'line'],
  back: ['M11.500 5l-5 5 5 5', 'line'],
  close: ['M5.500 5.500l9 9M14.500 5.500l-9 9', 'line'],
  volume: ['M3.500 8v4H6l3.500 3V5L6 8zM12.500 7.500a3.500 3.500 0 0 1 0 5M14.700 5.300a6.600 6.600 0 0 1 0 9.400', 'line'],
  muted: ['M3.500 8v4H6l3.500 3V5L6 8zM13 8.200l3.600 3.600M16.600 8.200L13 11.800', 'line'],
  search: ['M9 14A5 5 0 1 0 9 4a5 5 0 0 0 0 10zM12.700 12.700L16 16', 'line'],
  drop: ['M10 3.500v8.500M6.500 8.700L10 12.200l3.500-3.500M4 13.500v2.500h12v-2.500', 'line'],
  upload: ['M10 12.500V4M6.500 7.300L10 3.800l3.500 3.500M4 13.500v2.500h12v-2.500', 'line'],
  alert: ['M10 6.200v4.600M10 13.600v.1M10 2.800a7.200 7.200 0 1 1 0 14.400 7.200 7.200 0 0 1 0-14.400z', 'line'],
  check: ['M4.500 10.500l3.700 3.700 7.300-8', 'line'],
} as const;

export type IconName = keyof typeof PATHS;
const SVG = 'http://www.w3.org/2000/svg';

export function icon(name: IconName, className = ''): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 20 20');
  svg.setAttribute('class', `icon ${className}`.trim());
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  svg.append(path);
  setIcon(svg, name);
  return svg;
}

export function setIcon(svg: SVGSVGElement, name: IconName): void {
  const path = svg.firstElementChild;
  if (!path || svg.dataset['icon'] === name) return;
  svg.dataset['icon'] = name;
  const [d, kind] = PATHS[name];
  path.setAttribute('d', d);
  path.setAttribute('fill', kind === 'fill' ? 'currentColor' : 'none');
  path.setAttribute('stroke', kind === 'fill' ? 'none' : 'currentColor');
}

/** The mark: one song's line crossing into the next one's. */
export function mark(): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 20');
  svg.setAttribute('class', 'mark');
  svg.setAttribute('aria-hidden', 'true');
  const strokes: [string, string][] = [
    ['M2 4.500h4.500c3 0 4.300 2.300 5.500 5.500s2.500 5.500 5.500 5.500H22', 'under'],
    ['M2 15.500h4.500c3 0 4.300-2.300 5.500-5.500s2.500-5.500 5.500-5.500H22', 'over'],
  ];
  for (const [d, name] of strokes) {
    const path = document.createElementNS(SVG, 'path');
    path.setAttribute('d', d);
    path.setAttribute('class', name);
    svg.append(path);
  }
  return svg;
}
