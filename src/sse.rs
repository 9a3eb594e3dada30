//! Reading server-sent events (WHATWG HTML, section 9.2.6) from a response.

use anyhow::{Context, bail};
use futures::StreamExt;

/// An event larger than this is not one of ours.
const EVENT_MAX: usize = 1024 * 1024;

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The `event` field; `message` where there was none.
    pub(crate) name: String,
    /// The `data` lines, joined with line feeds.
    pub(crate) data: String,
}

/// Splits a byte stream into events.
#[derive(Default)]
pub(crate) struct Parser {
    pending: Vec<u8>,
}

impl Parser {
    /// Takes the next bytes and returns the events that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Event>> {
        self.pending.extend(bytes.iter().filter(|byte| **byte != b'\r'));
        let mut events = Vec::new();
        while let Some(end) = self.pending.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.pending.drain(..end + 2).collect();
            events.extend(event(&String::from_utf8_lossy(&block)));
        }
        if self.pending.len() > EVENT_MAX {
            bail!("the control plane sent an event of more than {EVENT_MAX} bytes");
        }
        Ok(events)
    }
}

fn event(block: &str) -> Option<Event> {
    let field = |line: &str, name: &str| -> Option<String> {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        Some(value.strip_prefix(' ').unwrap_or(value).to_owned())
    };
    let data: Vec<String> = block.lines().filter_map(|line| field(line, "data")).collect();
    if data.is_empty() {
        return None;
    }
    let name = block.lines().find_map(|line| field(line, "event")).unwrap_or_else(|| "message".to_owned());
    Some(Event { name, data: data.join("\n") })
}

/// Calls `each` for every event until it says stop or the server ends the stream.
pub(crate) async fn read(
    response: reqwest::Response,
    mut each: impl FnMut(Event) -> anyhow::Result<std::ops::ControlFlow<()>>,
) -> anyhow::Result<()> {
    let mut stream = response.bytes_stream();
    let mut parser = Parser::default();
    while let Some(bytes) = stream.next().await {
        for event in parser.push(&bytes.context("the event stream broke off")?)? {
            if each(event)?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn events_are_the_same_at_every_split() {
        let text = b"event: fact\ndata: {\"a\":1}\n\n: keep-alive\n\ndata:one\r\ndata: two\r\n\r\n";
        let whole = Parser::default().push(text).unwrap();
        assert_eq!(whole.len(), 2);
        assert_eq!(whole[0], Event { name: "fact".into(), data: "{\"a\":1}".into() });
        assert_eq!(whole[1], Event { name: "message".into(), data: "one\ntwo".into() });
        for split in 0..text.len() {
            let mut parser = Parser::default();
            let mut events = parser.push(&text[..split]).unwrap();
            events.extend(parser.push(&text[split..]).unwrap());
            assert_eq!(events, whole, "split at {split}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        assert!(Parser::default().push(&vec![b'x'; EVENT_MAX + 1]).is_err());
    }
}
