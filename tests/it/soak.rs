//! The soak's short form, and the proof that its checker can fail.

use std::time::Duration;

use segue_testkit::soak::{Settings, run};

fn settings(seconds: u64, planted: bool) -> Settings {
    Settings { segue: crate::SEGUE.into(), length: Duration::from_secs(seconds), clients: 16, seed: 2026, planted }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_of_mixed_load_gives_no_wrong_byte() -> anyhow::Result<()> {
    let report = run(&settings(60, false)).await?;
    assert!(report.is_clean(), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_wrong_byte_is_found() -> anyhow::Result<()> {
    let report = run(&settings(5, true)).await?;
    let found = report.violations.iter().filter(|violation| violation.contains("cover.jpg")).count();
    assert!(found > 0 && found == report.violations.len(), "{report}");
    assert!(report.violations.iter().any(|violation| violation.contains("WRONG BYTE")), "{report}");
    // The log was kept for whoever looks into a violation; this one was planted.
    if let Some(dir) = &report.dir {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(())
}
