//! Schedules and the times they run at, worked out by hand.

use std::collections::BTreeSet;

use chrono::SecondsFormat;

use super::*;

fn zone(name: &str) -> Zone {
    name.parse().unwrap()
}

fn schedule(text: &str, name: &str) -> Schedule {
    Schedule::parse(text, zone(name)).unwrap()
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The times that a schedule runs after one time and until another, as the clocks of its zone show them.
fn runs(schedule: &Schedule, from: &str, to: &str) -> Vec<String> {
    let (mut time, to) = (utc(from), utc(to));
    let mut runs = Vec::new();
    while let Some(next) = schedule.next_after(time).filter(|next| *next <= to) {
        assert!(next > time);
        time = next;
        let local = next.with_timezone(&schedule.zone().offset_at(next.naive_utc()));
        runs.push(local.to_rfc3339_opts(SecondsFormat::Secs, true).replace(":00+", "+"));
    }
    runs
}

/// The nth run after noon of 2024-01-01 in UTC.
fn nth(text: &str, n: usize) -> String {
    let schedule = schedule(text, "UTC");
    let mut time = utc("2024-01-01T12:00:00Z");
    for _ in 0..n {
        time = schedule.next_after(time).unwrap();
    }
    time.naive_utc().format("%a %F %T").to_string()
}

#[test]
fn times_are_those_of_the_reference() {
    for (text, n, expected) in [
        ("10/20 15 14 5-10 * ? *", 50, "Sat 2024-03-09 14:15:30"),
        ("0 5,7,9 14/2 ? * WED,Sat *", 50, "Sat 2024-01-13 16:07:00"),
        ("0 0 14/2 ? * mon/3 *", 50, "Thu 2024-02-01 22:00:00"),
        ("*/3 */51 */12 */2 */4 ? *", 50, "Wed 2024-01-03 00:00:30"),
        ("10,20 10,20 10,20 ? 6,12 3,6", 50, "Tue 2024-06-25 10:10:20"),
        ("0 0 0 29 2 ?", 50, "Fri 2228-02-29 00:00:00"),
        ("0 0 0 1 5 ? 2023/2", 50, "Sat 2123-05-01 00:00:00"),
        ("0 0 0 ? * SUN,TUE-WED,Fri-Sat", 50, "Sun 2024-03-10 00:00:00"),
        ("0 0 1,5-11/3 * * *", 50, "Sun 2024-01-14 05:00:00"),
        ("@yearly", 100, "Sat 2124-01-01 00:00:00"),
        ("@monthly", 100, "Sat 2032-05-01 00:00:00"),
        ("@weekly", 100, "Sun 2025-11-30 00:00:00"),
        ("@daily", 100, "Wed 2024-04-10 00:00:00"),
        ("@hourly", 100, "Fri 2024-01-05 16:00:00"),
        ("0 15 10 L * ?", 15, "Mon 2025-03-31 10:15:00"),
        ("0 15 10 L-5 * ?", 15, "Wed 2025-03-26 10:15:00"),
        ("0 15 12 L-25 * ?", 15, "Thu 2025-03-06 12:15:00"),
        ("0 0 12 L-30 * ?", 15, "Sun 2026-03-01 12:00:00"),
        ("0 15 10 15W * ?", 15, "Fri 2025-03-14 10:15:00"),
        ("0 15 10 1W 1/2 ?", 15, "Wed 2026-07-01 10:15:00"),
        ("0 15 10 31W * ?", 15, "Mon 2025-03-31 10:15:00"),
        ("0 15 10 LW * ?", 15, "Mon 2025-03-31 10:15:00"),
        ("0 15 10 ? * THUL", 10, "Thu 2024-10-31 10:15:00"),
        ("0 15 10 ? * 2#1", 10, "Mon 2024-11-04 10:15:00"),
        ("0 15 10 ? * sat#5", 10, "Sat 2026-05-30 10:15:00"),
    ] {
        assert_eq!(nth(text, n), expected, "{text}");
    }
}

#[test]
fn workdays_stay_in_their_month() {
    // 2026-08-01 is a Saturday, 2026-05-31 a Sunday, 2026-10-31 a Saturday.
    let days = |text, year| {
        let schedule = schedule(text, "UTC");
        runs(&schedule, &format!("{year}-01-01T00:00:00Z"), &format!("{year}-12-31T23:59:59Z"))
            .iter()
            .map(|run| run[5..10].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        days("0 0 6 1W * ?", 2026),
        [
            "01-01", "02-02", "03-02", "04-01", "05-01", "06-01", "07-01", "08-03", "09-01", "10-01",
            "11-02", "12-01"
        ]
    );
    let last = [
        "01-30", "02-27", "03-31", "04-30", "05-29", "06-30", "07-31", "08-31", "09-30", "10-30", "11-30",
        "12-31",
    ];
    assert_eq!(days("0 0 6 LW * ?", 2026), last);
    assert_eq!(days("0 0 6 31W * ?", 2026), last);
    assert_eq!(days("0 0 6 L-29 * ?", 2026).len(), 11);
    assert_eq!(days("0 0 6 ? * L", 2026).len(), 52);
    assert_eq!(days("0 0 6 ? * SATL", 2026).len(), 12);
}

#[test]
fn what_never_runs_is_refused() {
    for text in ["0 0 0 30 2 ?", "0 0 0 31 4,6,9,11 ?", "0 0 0 L-30 2,4 ?", "0 0 0 29 2 ? 2101-2103"] {
        let error = Schedule::parse(text, Zone::Utc).unwrap_err().to_string();
        assert_eq!(error, format!("{text:?} never runs: no such day exists"));
    }
    let error = Schedule::parse("0 0 0 1 1 ? 2000-2020", Zone::Utc).unwrap_err().to_string();
    assert_eq!(error, "\"0 0 0 1 1 ? 2000-2020\" never runs again: its years are over");
    let error = Schedule::parse("0 0 25 * * ?", Zone::Utc).unwrap_err().to_string();
    assert_eq!(error, "\"0 0 25 * * ?\" is not a schedule: hours 25 is not one of 0 to 23");
}

#[test]
fn a_schedule_ends_with_its_years() {
    let schedule = schedule("0 0 0 1 1 ? 4998/1", "UTC");
    let first = schedule.next_after(utc("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(first, utc("4998-01-01T00:00:00Z"));
    let last = schedule.next_after(first).unwrap();
    assert_eq!(last, utc("4999-01-01T00:00:00Z"));
    assert_eq!(schedule.next_after(last), None);
    for end in [DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC] {
        let berlin = Schedule::parse("* * * * * ?", zone("Europe/Berlin")).unwrap();
        assert_eq!(berlin.next_after(end), None);
    }
}

#[test]
fn it_is_written_as_it_was_read() {
    let daily = schedule(" 0 30  2 * * ? ", "Europe/Berlin");
    assert_eq!((daily.to_string(), daily.text()), ("0 30  2 * * ?".to_owned(), "0 30  2 * * ?"));
    assert_eq!(daily.zone().to_string(), "Europe/Berlin");
    assert_eq!(daily, daily.clone());
    assert_ne!(daily, schedule(daily.text(), "UTC"));
}

#[test]
fn the_next_run_is_on_a_whole_second() {
    let every = schedule("* * * * * ?", "UTC");
    let next = |text| every.next_after(utc(text)).unwrap();
    assert_eq!(next("2026-01-01T00:00:00Z"), utc("2026-01-01T00:00:01Z"));
    assert_eq!(next("2026-01-01T00:00:00.999Z"), utc("2026-01-01T00:00:01Z"));
    assert_eq!(next("1969-12-31T23:59:59.5Z"), utc("1970-01-01T00:00:00Z"));
}

#[test]
fn daily_runs_once_a_day_when_the_clocks_change() {
    // In Berlin and New York 02:30 is skipped in spring; in Berlin it comes twice in autumn. On Lord Howe the clocks go
    // from 02:00 to 02:30 in October, and from 02:00 back to 01:30 in April.
    for (name, from, to, expected) in [
        (
            "Europe/Berlin",
            "2026-03-28T00:00:00Z",
            "2026-03-31T00:00:00Z",
            ["28T02:30+01:00", "29T03:00+02:00", "30T02:30+02:00"],
        ),
        (
            "Europe/Berlin",
            "2026-10-24T00:00:00Z",
            "2026-10-27T00:00:00Z",
            ["24T02:30+02:00", "25T02:30+02:00", "26T02:30+01:00"],
        ),
        (
            "America/New_York",
            "2026-03-07T05:00:00Z",
            "2026-03-10T04:00:00Z",
            ["07T02:30-05:00", "08T03:00-04:00", "09T02:30-04:00"],
        ),
        (
            "America/New_York",
            "2026-10-31T04:00:00Z",
            "2026-11-03T05:00:00Z",
            ["31T02:30-04:00", "01T02:30-05:00", "02T02:30-05:00"],
        ),
        (
            "Australia/Lord_Howe",
            "2026-10-02T13:30:00Z",
            "2026-10-05T13:00:00Z",
            ["03T02:30+10:30", "04T02:30+11:00", "05T02:30+11:00"],
        ),
        (
            "Australia/Lord_Howe",
            "2026-04-03T13:00:00Z",
            "2026-04-06T13:30:00Z",
            ["04T02:30+11:00", "05T02:30+10:30", "06T02:30+10:30"],
        ),
    ] {
        let runs = runs(&schedule("0 30 2 * * ?", name), from, to);
        let runs: Vec<_> = runs.iter().map(|run| run[8..].replace(":00-", "-")).collect();
        assert_eq!(runs, expected, "{name} {from}");
    }
}

#[test]
fn named_times_run_once_in_a_repeated_hour() {
    let (from, to) = ("2026-10-24T22:00:00Z", "2026-10-25T04:00:00Z");
    let runs_of = |text, name| runs(&schedule(text, name), from, to);
    assert_eq!(runs_of("0 0 3 * * ?", "Europe/Berlin"), ["2026-10-25T03:00+01:00"]);
    assert_eq!(
        runs_of("0 0,5 2 * * ?", "Europe/Berlin"),
        ["2026-10-25T02:00+02:00", "2026-10-25T02:05+02:00"]
    );
    assert_eq!(
        runs_of("0 0 */2 * * ?", "Europe/Berlin"),
        ["2026-10-25T02:00+02:00", "2026-10-25T04:00+01:00"]
    );
    // Asked from within the second pass, the first is over.
    let daily = schedule("0 30 2 * * ?", "Europe/Berlin");
    assert_eq!(daily.next_after(utc("2026-10-25T01:10:00Z")), Some(utc("2026-10-26T01:30:00Z")));
}

#[test]
fn two_named_times_in_a_gap_run_once() {
    let (from, to) = ("2026-03-28T23:00:00Z", "2026-03-29T03:00:00Z");
    let runs_of = |text| runs(&schedule(text, "Europe/Berlin"), from, to);
    assert_eq!(runs_of("0 0,30 2 * * ?"), ["2026-03-29T03:00+02:00"]);
    assert_eq!(runs_of("0 30 2,3 * * ?"), ["2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00"]);
    assert_eq!(runs_of("0 0/15 2 * * ?"), ["2026-03-29T03:00+02:00"]);
    // Midnight itself is skipped in Beirut, and a whole day was on Samoa.
    let beirut = runs(&schedule("@daily", "Asia/Beirut"), "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z");
    assert_eq!(beirut, ["2026-03-29T01:00+03:00", "2026-03-30T00:00+03:00"]);
    let samoa =
        runs(&schedule("0 30 2 * * ?", "Pacific/Apia"), "2011-12-29T00:00:00Z", "2011-12-31T12:00:00Z");
    assert_eq!(
        samoa.iter().map(|run| &run[..16]).collect::<Vec<_>>(),
        ["2011-12-29T02:30", "2011-12-31T00:00", "2011-12-31T02:30"]
    );
}

/// The distances between runs, in minutes, from two hours before the change of the clocks to four hours after.
fn spacing(text: &str, name: &str, change: &str) -> BTreeSet<i64> {
    let schedule = schedule(text, name);
    let change = utc(change);
    let mut time = change - TimeDelta::hours(2) - SECOND;
    let mut distances = BTreeSet::new();
    let mut last = None;
    while let Some(next) = schedule.next_after(time).filter(|next| *next <= change + TimeDelta::hours(4)) {
        distances.extend(last.map(|last: DateTime<Utc>| (next - last).num_minutes()));
        last = Some(next);
        time = next;
    }
    distances
}

#[test]
fn spacing_is_real_time_when_the_clocks_change() {
    let changes = [
        ("Europe/Berlin", "2026-03-29T01:00:00Z"),
        ("Europe/Berlin", "2026-10-25T01:00:00Z"),
        ("America/New_York", "2026-03-08T07:00:00Z"),
        ("America/New_York", "2026-11-01T06:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
    ];
    for (name, change) in changes {
        assert_eq!(spacing("0 0/15 * * * ?", name, change), BTreeSet::from([15]), "{name} {change}");
        assert_eq!(spacing("0 */5 * * * ?", name, change), BTreeSet::from([5]), "{name} {change}");
    }
    for (name, change) in &changes[..4] {
        for text in ["@hourly", "0 30 * * * ?", "0 59 0-23 * * ?"] {
            assert_eq!(spacing(text, name, change), BTreeSet::from([60]), "{text} {name} {change}");
        }
        assert_eq!(spacing("0 5/15 0-8 * * ?", name, change), BTreeSet::from([15]), "{name} {change}");
    }
}

#[test]
fn hourly_on_lord_howe_follows_the_clocks() {
    let hourly = schedule("@hourly", "Australia/Lord_Howe");
    // 02:00 is skipped, and made up for when the clocks show 02:30, an hour after 01:00.
    assert_eq!(
        runs(&hourly, "2026-10-03T14:00:00Z", "2026-10-03T16:00:00Z"),
        ["2026-10-04T01:00+10:30", "2026-10-04T02:30+11:00", "2026-10-04T03:00+11:00"]
    );
    assert_eq!(
        runs(&hourly, "2026-04-04T13:30:00Z", "2026-04-04T16:30:00Z"),
        ["2026-04-05T01:00+11:00", "2026-04-05T02:00+10:30", "2026-04-05T03:00+10:30"]
    );
    let half_past = schedule("0 30 * * * ?", "Australia/Lord_Howe");
    assert_eq!(
        runs(&half_past, "2026-04-04T14:00:00Z", "2026-04-04T16:00:00Z"),
        ["2026-04-05T01:30+11:00", "2026-04-05T01:30+10:30", "2026-04-05T02:30+10:30"]
    );
}
