//! The facts' soak in its short form: three edges and the tally killed, the sink away, and the books agree.

use std::time::Duration;

use segue_testkit::facts::{Settings, run};

fn settings(seed: u64, fluvio: Option<String>) -> Settings {
    Settings {
        segue: crate::SEGUE.into(),
        length: Duration::from_secs(45),
        players: 50,
        away: Duration::from_secs(12),
        seed,
        fluvio,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_completed_segment_has_one_fact_whoever_is_killed() -> anyhow::Result<()> {
    let report = run(&settings(2026, None)).await?;
    println!("{report}");
    anyhow::ensure!(report.is_clean(), "{report}");
    anyhow::ensure!(report.kills.0 >= 3 && report.kills.1 >= 1, "too few were killed to show anything\n{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_through_fluvio() -> anyhow::Result<()> {
    let Ok(address) = std::env::var("SEGUE_TEST_FLUVIO") else {
        eprintln!("SKIPPED: the facts' soak through Fluvio was NOT run: SEGUE_TEST_FLUVIO does not name a cluster");
        return Ok(());
    };
    let report = run(&settings(2027, Some(address))).await?;
    println!("{report}");
    anyhow::ensure!(report.is_clean(), "{report}");
    Ok(())
}
