//! Plots as SVG: bars for one figure of several systems, lines on logarithmic axes.

use std::ops::Range;
use std::path::Path;

use anyhow::anyhow;
use clap::ValueEnum;
use plotters::prelude::{
    ChartBuilder, Color, EmptyElement, IntoDrawingArea, IntoFont, IntoLogRange, LineSeries, PathElement,
    RGBColor, Rectangle, SVGBackend, SeriesLabelPosition, Text,
};
use plotters::style::{BLACK, WHITE};

use super::Group;
use super::table::significant;
use crate::figures::{CellPart, Results};
use crate::system::System;
use crate::workload::{Operation, Shape};

pub(super) const WRITES: &str = "writes";
pub(super) const WRITES_CPU: &str = "writes-cpu";
pub(super) const CLIENTS: &str = "writes-by-clients";
pub(super) const READS: &str = "reads";
pub(super) const LATENCY: &str = "latency";
pub(super) const HTTP: &str = "http";
pub(super) const NODES: &str = "nodes";
pub(super) const GROWTH: &str = "growth";

/// Clients of the plots with bars.
const BAR_CLIENTS: usize = 32;
const WIDTH: u32 = 900;
const BAR_HEIGHT: u32 = 34;
const HEAD_HEIGHT: u32 = 60;
const FONT: &str = "sans-serif";
const FONT_SIZE: u32 = 15;
const TITLE_SIZE: u32 = 20;
/// Room right of a bar for its number, as a share of the longest.
const NUMBER_SHARE: f64 = 0.15;
/// Room right of lines for what they mean, as a factor on their axis.
const LEGEND_FACTOR: f64 = 8.0;
/// Told apart by most people, also by those who see fewer colours.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(150, 80, 130),
    RGBColor(90, 90, 90),
    RGBColor(160, 160, 160),
];

/// A series of a line plot.
struct Line {
    label: String,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

/// A bar.
struct Bar {
    label: String,
    colour: RGBColor,
    value: f64,
}

fn colour(system: System) -> RGBColor {
    COLOURS[system as usize % COLOURS.len()]
}

/// Writes every plot for which there are figures.
pub(super) fn write_all(results: &Results, directory: &Path) -> anyhow::Result<()> {
    let of_matrix = |operation: Operation, value: fn(&Group<'_>) -> f64| {
        let mut groups = Group::all(results, CellPart::Matrix);
        groups.retain(|group| group.cell().operation == operation && group.cell().clients == BAR_CLIENTS);
        bars_of(&groups, value)
    };
    let rate: fn(&Group<'_>) -> f64 = |group| group.median(|measured| measured.per_second);
    let cpu: fn(&Group<'_>) -> f64 = |group| group.median(|measured| measured.servers_cpu_us);
    let file = |name: &str| directory.join(format!("{name}.svg"));
    bars(&file(WRITES), "Acknowledged writes a second, 32 clients", &of_matrix(Operation::Write, rate))?;
    let title = "Servers' processor time of a write, microseconds, 32 clients";
    bars(&file(WRITES_CPU), title, &of_matrix(Operation::Write, cpu))?;
    // A look into the memory of the own process is no request: it would only make the others' bars invisible.
    let mut reads = Group::all(results, CellPart::Matrix);
    reads.retain(|group| {
        let cell = group.cell();
        let is_remote = !matches!(cell.system, System::MnesiaTransaction | System::MnesiaSync);
        is_remote && cell.operation == Operation::Read && cell.clients == BAR_CLIENTS
    });
    bars(
        &file(READS),
        "Reads a second, 32 clients (without Mnesia, which sends none)",
        &bars_of(&reads, rate),
    )?;
    let mut http = Group::all(results, CellPart::Http);
    http.retain(|group| group.cell().shape == Shape::Single && group.cell().clients == BAR_CLIENTS);
    bars(&file(HTTP), "Reads a second of one server, 32 clients", &bars_of(&http, rate))?;
    bars(&file(NODES), "Acknowledged writes a second, 32 clients", &nodes(results))?;
    bars(&file(GROWTH), "Servers' processor time of a write, microseconds", &growth(results))?;
    let axes = ("clients", "acknowledged writes a second");
    lines(
        &file(CLIENTS),
        "Acknowledged writes by clients",
        axes,
        |clients| format!("{clients:.0}"),
        &by_clients(results),
    )?;
    let title = "Latency of writes, 4,000 due a second, 128 clients";
    let axes = ("percentile", "milliseconds from the intended start");
    lines(&file(LATENCY), title, axes, percentile, &latency(results, 4_000))
}

fn bars_of(groups: &[Group<'_>], value: fn(&Group<'_>) -> f64) -> Vec<Bar> {
    let mut bars: Vec<(System, Bar)> = groups
        .iter()
        .map(|group| {
            let system = group.cell().system;
            (system, Bar { label: system.label().to_owned(), colour: colour(system), value: value(group) })
        })
        .collect();
    bars.sort_by_key(|(system, _)| *system as usize);
    bars.into_iter().map(|(_, bar)| bar).collect()
}

fn nodes(results: &Results) -> Vec<Bar> {
    let groups = Group::all(results, CellPart::Nodes);
    let writes = groups.iter().filter(|group| group.cell().operation == Operation::Write);
    writes
        .map(|group| Bar {
            label: format!("{} nodes", group.cell().nodes),
            colour: COLOURS[0],
            value: group.median(|measured| measured.per_second),
        })
        .collect()
}

fn growth(results: &Results) -> Vec<Bar> {
    let bar = |growth: &crate::figures::Growth| Bar {
        label: format!("{} records", super::table::thousands(growth.records)),
        colour: COLOURS[0],
        value: growth.servers_cpu_us,
    };
    results.growth.iter().map(bar).collect()
}

fn by_clients(results: &Results) -> Vec<Line> {
    let groups = Group::all(results, CellPart::Matrix);
    System::value_variants()
        .iter()
        .filter(|system| System::REPLICATED.contains(system))
        .map(|system| {
            let of_system = groups
                .iter()
                .filter(|group| (group.cell().system, group.cell().operation) == (*system, Operation::Write));
            let points = of_system
                .map(|group| (group.cell().clients as f64, group.median(|measured| measured.per_second)))
                .collect();
            Line { label: system.label().to_owned(), colour: colour(*system), points }
        })
        .collect()
}

/// Percentiles at a rate; their place is one over the share that takes longer.
fn latency(results: &Results, rate: u32) -> Vec<Line> {
    let mut groups = Group::all(results, CellPart::Open);
    groups.sort_by_key(|group| group.cell().system as usize);
    let at_rate = groups.iter().filter(|group| group.cell().rate == Some(rate));
    at_rate
        .map(|group| {
            let system = group.cell().system;
            let ms = |us: f64| us / 1_000.0;
            let points = vec![
                (2.0, ms(group.latency(|latency| latency.p50_us))),
                (10.0, ms(group.latency(|latency| latency.p90_us))),
                (100.0, ms(group.latency(|latency| latency.p99_us))),
                (1_000.0, ms(group.latency(|latency| latency.p999_us))),
            ];
            Line { label: system.label().to_owned(), colour: colour(system), points }
        })
        .collect()
}

/// The percentile at a place of [`latency`].
fn percentile(place: &f64) -> String {
    format!("{} %", significant(100.0 - 100.0 / place).trim_end_matches('0').trim_end_matches('.'))
}

/// Horizontal bars, the first on top.
fn bars(file: &Path, title: &str, bars: &[Bar]) -> anyhow::Result<()> {
    let Some(most) = bars.iter().map(|bar| bar.value).reduce(f64::max).filter(|most| *most > 0.0) else {
        return Ok(());
    };
    let count = i32::try_from(bars.len())?;
    let area =
        SVGBackend::new(file, (WIDTH, HEAD_HEIGHT + BAR_HEIGHT * u32::try_from(count)?)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, TITLE_SIZE))
        .margin(10)
        .y_label_area_size(200)
        .build_cartesian_2d(0.0..most * (1.0 + NUMBER_SHARE), 0.0..f64::from(count))
        .map_err(|error| anyhow!("{error}"))?;
    let style = (FONT, FONT_SIZE).into_font();
    for (place, bar) in (0..count).zip(bars) {
        let top = f64::from(count - place) - 0.15;
        let bottom = top - 0.7;
        chart.draw_series([Rectangle::new([(0.0, bottom), (bar.value, top)], bar.colour.filled())])?;
        let number = Text::new(significant_or_whole(bar.value), (6, -7), style.clone());
        chart.draw_series([EmptyElement::at((bar.value, f64::midpoint(top, bottom))) + number])?;
        let label = Text::new(bar.label.clone(), (-195, -7), style.clone());
        chart.draw_series([EmptyElement::at((0.0, f64::midpoint(top, bottom))) + label])?;
    }
    area.present()?;
    Ok(())
}

/// A rate as a whole number, a small figure with its digits.
fn significant_or_whole(value: f64) -> String {
    if value >= 1_000.0 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a figure of a plot")]
        return super::table::thousands(value.round() as u64);
    }
    significant(value)
}

/// The range of a coordinate over all lines, with room around; nothing when there is no point.
fn range(lines: &[Line], coordinate: fn(&(f64, f64)) -> f64) -> Option<Range<f64>> {
    let all = || lines.iter().flat_map(|line| &line.points).map(coordinate).filter(|value| *value > 0.0);
    Some(all().reduce(f64::min)? * 0.8..all().reduce(f64::max)? * 1.25)
}

/// Lines on logarithmic axes.
fn lines(
    file: &Path,
    title: &str,
    (x_axis, y_axis): (&str, &str),
    x_label: impl Fn(&f64) -> String,
    lines: &[Line],
) -> anyhow::Result<()> {
    let (Some(x), Some(y)) = (range(lines, |point| point.0), range(lines, |point| point.1)) else {
        return Ok(());
    };
    let area = SVGBackend::new(file, (WIDTH, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, TITLE_SIZE))
        .margin(10)
        .x_label_area_size(45)
        .y_label_area_size(80)
        .build_cartesian_2d((x.start..x.end * LEGEND_FACTOR).log_scale(), y.log_scale())
        .map_err(|error| anyhow!("{error}"))?;
    chart
        .configure_mesh()
        .x_desc(x_axis)
        .y_desc(y_axis)
        .x_label_formatter(&|value| if x.contains(value) { x_label(value) } else { String::new() })
        .y_label_formatter(&|value| significant_or_whole(*value))
        .label_style((FONT, FONT_SIZE))
        .light_line_style(WHITE)
        .draw()?;
    for line in lines {
        let style = line.colour.stroke_width(3);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style))?
            .label(&line.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, FONT_SIZE))
        .draw()?;
    area.present()?;
    Ok(())
}
