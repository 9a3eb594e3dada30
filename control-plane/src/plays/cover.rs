//! Which parts of a track were delivered: a union of intervals, so that nothing counts twice.

/// Intervals that one cover may have. A listener who seeks has a few; only somebody who asks for crumbs of segments
/// comes here, and whose crumbs beyond this are not counted.
const INTERVALS_MAX: usize = 2048;

/// Disjoint intervals `[start, end)` in milliseconds of the track, ascending, none touching the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cover(Vec<(u64, u64)>);

impl Cover {
    /// Adds `[start, end)` and answers how many milliseconds are new.
    pub(crate) fn add(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        // Everything in `from..to` overlaps or touches the new interval.
        let from = self.0.partition_point(|&(_, e)| e < start);
        let to = self.0.partition_point(|&(s, _)| s <= end);
        let touched = self.0.get(from..to).unwrap_or_default();
        if touched.is_empty() && self.0.len() >= INTERVALS_MAX {
            return 0;
        }
        let held: u64 = touched.iter().map(|&(s, e)| e - s).sum();
        let merged =
            (touched.first().map_or(start, |&(s, _)| s.min(start)), touched.last().map_or(end, |&(_, e)| e.max(end)));
        self.0.splice(from..to, [merged]);
        merged.1 - merged.0 - held
    }

    /// Adds all that another has.
    pub(crate) fn add_all(&mut self, other: &Self) {
        for (start, end) in &other.0 {
            self.add(*start, *end);
        }
    }

    /// Distinct milliseconds.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|&(start, end)| end - start).sum()
    }

    /// As it is stored: `start-end` pairs, separated by spaces.
    pub(crate) fn to_text(&self) -> String {
        let pairs: Vec<String> = self.0.iter().map(|(start, end)| format!("{start}-{end}")).collect();
        pairs.join(" ")
    }

    /// Reads what [`Cover::to_text`] wrote; `None` where it is something else.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut cover = Self::default();
        for pair in text.split_ascii_whitespace() {
            let (start, end) = pair.split_once('-')?;
            cover.add(start.parse().ok()?, end.parse().ok()?);
        }
        Some(cover)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn overlaps_and_repeats_count_once() {
        let mut cover = Cover::default();
        assert_eq!(cover.add(0, 6000), 6000);
        assert_eq!(cover.add(0, 6000), 0);
        assert_eq!(cover.add(3000, 9000), 3000);
        assert_eq!(cover.add(20_000, 26_000), 6000);
        assert_eq!(cover.add(9000, 20_000), 11_000);
        assert_eq!(cover, Cover(vec![(0, 26_000)]));
        assert_eq!(cover.total(), 26_000);
    }

    #[test]
    fn an_interval_that_swallows_others_counts_what_is_new() {
        let mut cover = Cover::default();
        for start in [10, 30, 50] {
            cover.add(start, start + 10);
        }
        assert_eq!(cover.add(0, 100), 70);
        assert_eq!(cover.total(), 100);
    }

    #[test]
    fn empty_and_backward_intervals_are_nothing() {
        let mut cover = Cover::default();
        assert_eq!(cover.add(5, 5), 0);
        assert_eq!(cover.add(9, 3), 0);
        assert_eq!(cover, Cover::default());
    }

    #[test]
    fn any_order_comes_to_the_same() {
        // All orders of four overlapping and touching intervals.
        let parts = [(0, 10), (10, 20), (15, 30), (40, 50)];
        for code in 0..256usize {
            let order = [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6];
            let mut cover = Cover::default();
            let gained: u64 = order.iter().chain(&[0, 1, 2, 3]).map(|&n| cover.add(parts[n].0, parts[n].1)).sum();
            assert_eq!(cover, Cover(vec![(0, 30), (40, 50)]), "{order:?}");
            assert_eq!(gained, 40, "{order:?}");
        }
    }

    #[test]
    fn it_is_bounded() {
        let mut cover = Cover::default();
        for n in 0..(INTERVALS_MAX as u64 + 100) {
            cover.add(n * 10, n * 10 + 1);
        }
        assert_eq!(cover.0.len(), INTERVALS_MAX);
        assert_eq!(cover.add(1, 3), 2, "what grows an interval still counts");
    }

    #[test]
    fn its_text_reads_back() {
        let mut cover = Cover::default();
        cover.add(0, 6000);
        cover.add(12_000, 18_000);
        assert_eq!(Cover::from_text(&cover.to_text()).unwrap(), cover);
        assert_eq!(Cover::from_text("").unwrap(), Cover::default());
        assert_eq!(Cover::from_text("1-x"), None);
    }
}
