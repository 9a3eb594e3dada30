//! `segue policy delete`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::remote::name;
use crate::cli::{ControlArgs, say};
use crate::client::Control;

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The policy's name
    #[arg(value_parser = name)]
    name: String,
    /// The version; left out, the whole policy goes
    #[arg(value_parser = name)]
    version: Option<String>,
    /// Also a policy of which a version decides: nobody enforces its rule from then on
    #[arg(long, conflicts_with = "version")]
    force: bool,
    #[command(flatten)]
    control: ControlArgs,
}

pub(super) async fn run(args: DeleteArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.control)?;
    let name = &args.name;
    let (path, what) = match &args.version {
        Some(version) => (format!("/v1/policies/{name}/versions/{version}"), format!("{name} {version}")),
        None => (format!("/v1/policies/{name}?force={}", args.force), name.clone()),
    };
    control.delete(&path).await?;
    if args.control.json {
        say(json!({ "policy": name, "version": args.version, "deleted": true }))?;
    } else {
        say(format_args!("deleted {what}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
