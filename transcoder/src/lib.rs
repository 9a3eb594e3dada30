//! The transcoder: one upload in, one HLS ladder out.
//!
//! Purpose: a worker takes jobs from the control plane, fetches the source from S3, judges it, measures its loudness,
//! encodes every rendition in one run of ffmpeg, and uploads the result under a folder that no other attempt writes to.
//!
//! The life of a job, in the order of the files: [`Worker`] (`worker.rs`) claims it through `queue.rs`, `lease.rs` keeps
//! it ours, `job.rs` walks it through `source.rs` (fetch), `probe.rs` with `sniff.rs` and `declared.rs` (is this audio,
//! and is all of it there), `measure.rs` (loudness, length, waveform), `overshoot.rs` (what
//! coding adds to peaks), `ladder.rs` and `encode.rs` (renditions),
//! `master.rs` and `codecs.rs` (what was really encoded), `encrypt.rs` (where segments are to be encrypted), and `publish.rs`
//! (upload, then the control plane's commit).
//!
//! Invariants: a job is reported complete only after the store acknowledged every object; a lost lease kills ffmpeg
//! at once and publishes nothing more; ffmpeg sees one working folder, no network and no other file; nothing that a
//! process left behind outlives the next start.
//!
//! On failure: what the source is to blame for ends the job with a reason word and a sentence for its owner; what may
//! pass is reported as retryable; what cannot be reported at all is left to the lease's end.

mod artwork;
mod cage;
mod cmaf;
mod codecs;
mod config;
mod declared;
mod doctor;
mod encode;
mod encrypt;
mod ffmpeg;
mod film;
mod heirs;
mod job;
mod ladder;
mod lease;
mod leash;
mod master;
mod measure;
mod meter;
mod overshoot;
mod packets;
mod pictures;
mod playlist;
mod probe;
mod publish;
mod queue;
mod reject;
mod sniff;
mod source;
mod spool;
mod stitch;
mod store;
mod tags;
mod thumbnails;
mod waveform;
mod worker;
mod workspace;

pub use config::{ControlEndpoint, Encryption, Ladder, ObjectStore, TranscodeConfig, Video, VideoRung};
pub use doctor::examine;
pub use reject::{Failure, Reason};
pub use worker::{StartError, Worker};
