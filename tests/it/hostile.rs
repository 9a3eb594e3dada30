//! The short form of `make policy-fuzz`.

use std::time::Duration;

use segue_testkit::hostile::{Settings, run};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_uploaded_as_a_policy_the_control_plane_stands_it() -> anyhow::Result<()> {
    let settings = Settings { segue: crate::SEGUE.into(), length: Duration::from_secs(30), seed: 2026 };
    let report = run(&settings).await?;
    assert!(report.violations.is_empty(), "{report:#?}");
    assert!(report.uploads > 50 && report.words.len() >= 5 && report.others > 50, "too little to tell: {report:#?}");
    Ok(())
}
