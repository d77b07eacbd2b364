import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// series: [{label, colour: '--accent', width?, points?}]; data: [x, y...] as uPlot has it. `label` is for who can't see
// it.
export function Plot({ label, data, series, time = false, log = false, height = 220, unit = '' }) {
  const place = useRef(null), plot = useRef(null);
  useEffect(() => {
    const element = place.current;
    const make = () => {
      plot.current?.destroy();
      const axis = {
        stroke: colour('--dim'), font: '12px system-ui', grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false },
      };
      plot.current = new uPlot({
        width: element.clientWidth || 300,
        height,
        cursor: { points: { size: 6 }, drag: { x: !time, y: false } },
        legend: { live: true },
        scales: { x: { time }, y: log ? { distr: 3 } : { range: (u, low, high) => [Math.min(0, low), high > 0 ? high * 1.1 : 1] } },
        axes: [axis, { ...axis, size: 56, values: (u, values) => values.map((v) => (v === null ? '' : `${+v.toPrecision(3)}${unit}`)) }],
        series: [
          time ? { label: 'time' } : { label: 'step' },
          ...series.map((s) => ({
            label: s.label, stroke: colour(s.colour), width: s.width ?? 2, spanGaps: true, dash: s.dash,
            points: { show: !!s.points, size: 7, fill: colour(s.colour) },
            value: (u, v) => (v == null ? '–' : `${+v.toPrecision(4)}${unit}`),
          })),
        ],
      }, data, element);
    };
    make();
    const sized = new ResizeObserver(() => element.clientWidth && plot.current?.setSize({ width: element.clientWidth, height }));
    sized.observe(element);
    addEventListener('thimble-theme', make);
    const dark = matchMedia('(prefers-color-scheme: dark)');
    dark.addEventListener('change', make);
    return () => {
      sized.disconnect();
      removeEventListener('thimble-theme', make);
      dark.removeEventListener('change', make);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [series, log, height, time]);
  useEffect(() => { plot.current?.setData(data); }, [data]);
  return <div class="plot" role="img" aria-label={label} ref={place} />;
}
