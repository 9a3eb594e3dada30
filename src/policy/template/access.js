// Plays from an hour on, but for those with a plan. Make a rule of your own of it.
//
// Configuration: `from_hour = 18`, the hour (UTC) from which everybody may listen.

let fromHour;

// Called once in the life of an instance. What is thrown is told to the operator. The answer names the texts that `authorize` is given.
export function configure(text) {
  const { from_hour, ...rest } = JSON.parse(text);
  const [foreign] = Object.keys(rest);
  if (foreign) throw `unknown field ${foreign}; there is from_hour`;
  if (!Number.isInteger(from_hour) || from_hour < 0 || from_hour > 23) throw '`from_hour` is 0 to 23';
  fromHour = from_hour;
  return ['context:/plan'];
}

export function authorize(moment, fields) {
  const [plan] = fields.split('\x1f').map((field) => (field === '\0' ? undefined : field));
  const hour = Math.floor(Number(moment.nowMs) / 3_600_000) % 24;
  if (plan !== undefined || hour >= fromHour) return { tag: 'abstain' };
  return { tag: 'deny', val: { status: 403, reason: 'too-early', redirect: null, headers: [] } };
}
