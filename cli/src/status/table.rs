//! The run as lines and a table for people.

use super::View;
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use pixfleet_proto::pb;

/// The text.
pub(super) fn text(view: &View) -> String {
    match view {
        View::Closed(outcome, leader) => format!("the run is over: {}, under leader {leader}", outcome.word()),
        View::Live(status) => live(status),
    }
}

fn live(s: &pb::StatusReply) -> String {
    let mut lines = vec![format!(
        "run {}: {}, step {} of {}, generation {}, leader {} for {}",
        s.run,
        s.state,
        s.next_step,
        s.steps,
        s.generation,
        s.leader,
        duration(s.uptime_s)
    )];
    lines.extend(s.last.as_ref().and_then(progress));
    let checkpoint = s.checkpoint_step.map_or("none yet".to_string(), |step| format!("step {step}"));
    lines.push(format!("newest checkpoint: {checkpoint}; faults: {}", faults(s)));
    lines.extend(Some(s.message.clone()).filter(|m| !m.is_empty()));
    lines.push(members(&s.members));
    lines.join("\n")
}

/// Losses and rates of the newest step.
fn progress(last: &pb::StepDone) -> Option<String> {
    let report = last.report.as_ref()?;
    let losses = report.losses.as_ref()?;
    let terms: Vec<String> = losses.terms.iter().map(|(name, loss)| format!("{name} {loss:.4}")).collect();
    Some(format!(
        "loss {:.4} ({}), {:.1} samples/s, {:.3} s a step, epoch {}",
        losses.total,
        terms.join(", "),
        last.samples_per_s,
        report.seconds,
        last.epoch
    ))
}

fn faults(s: &pb::StatusReply) -> String {
    let mut kinds: Vec<_> = s.faults.iter().collect();
    kinds.sort_unstable();
    if kinds.is_empty() {
        return "none".into();
    }
    kinds.iter().map(|(kind, n)| format!("{n} {}", kind.replace('_', " "))).collect::<Vec<_>>().join(", ")
}

fn members(members: &[pb::MemberStatus]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header([
        "rank",
        "name",
        "member",
        "host",
        "pid",
        "state",
        "step",
        "step s",
        "data s",
        "collective s",
        "",
    ]);
    for column in [0, 2, 4, 6, 7, 8, 9] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut rows: Vec<_> = members.iter().collect();
    rows.sort_by_key(|m| (m.rank.is_none(), m.rank, m.member));
    let number = |n: Option<u64>| n.map_or("-".to_string(), |n| n.to_string());
    let seconds = |of: Option<f64>| of.map_or("-".to_string(), |s| format!("{s:.3}"));
    for m in rows {
        table.add_row([
            number(m.rank.map(u64::from)),
            m.name.clone(),
            m.member.to_string(),
            m.host.clone(),
            m.pid.to_string(),
            m.state.clone(),
            number(m.next_step),
            seconds(m.speed.map(|s| s.step_s)),
            seconds(m.speed.map(|s| s.data_wait_s)),
            seconds(m.speed.map(|s| s.collective_wait_s)),
            if m.speed.is_some_and(|s| s.straggler) { "straggler".into() } else { String::new() },
        ]);
    }
    table.to_string()
}

/// Whole hours, minutes and seconds.
fn duration(seconds: f64) -> String {
    let s = seconds as u64;
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_losses_rates_faults_and_the_straggler() {
        let text = text(&super::super::tests::live());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "run r: training, step 7 of 20, generation 4, leader 2 for 1 h 2 min");
        assert_eq!(lines[1], "loss 1.7500 (global 1.5000, local 0.2500), 48.0 samples/s, 0.500 s a step, epoch 1");
        assert_eq!(lines[2], "newest checkpoint: step 6; faults: 2 exited, 1 heartbeat missed");
        let row = lines.iter().find(|l| l.contains("w0")).expect("the member");
        for cell in ["training", "0.500", "0.010", "0.020", "straggler"] {
            assert!(row.contains(cell), "{cell} is missing in {row}");
        }
    }
}
