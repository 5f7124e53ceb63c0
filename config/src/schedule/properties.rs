//! Schedules compared with the plainest reading of their fields.

use chrono::{Datelike, NaiveDate, NaiveTime};
use proptest::prelude::*;

use super::fields::Days;
use super::*;

fn in_numbers(numbers: &Numbers, number: u32) -> bool {
    match numbers {
        Numbers::All => true,
        Numbers::Only(numbers) => numbers.contains(&(number as u16)),
    }
}

fn takes_day(fields: &Fields, date: NaiveDate) -> bool {
    let month: Vec<NaiveDate> =
        (1..=31).filter_map(|day| NaiveDate::from_ymd_opt(date.year(), date.month(), day)).collect();
    let weekday = |date: &NaiveDate| date.weekday().number_from_sunday() as u16;
    let workday = |date: &NaiveDate| (2..=6).contains(&weekday(date));
    let same_weekday =
        |day: u16| month.iter().filter(|date| weekday(date) == day).copied().collect::<Vec<_>>();
    let days = match &fields.days {
        Days::Every => vec![date],
        Days::OfMonth(days) => month.into_iter().filter(|date| days.contains(&(date.day() as u16))).collect(),
        Days::BeforeLast(days) => month.iter().rev().nth((*days).into()).copied().into_iter().collect(),
        Days::NearestWorkday(day) => {
            let day = usize::from(*day).min(month.len()) as i64;
            // Of two at the same distance one is not a workday.
            let distance = |date: &NaiveDate| (i64::from(date.day()) - day).abs();
            month.iter().filter(|date| workday(date)).copied().min_by_key(distance).into_iter().collect()
        }
        Days::OfWeek(days) => month.into_iter().filter(|date| days.contains(&weekday(date))).collect(),
        Days::LastOfWeekday(day) => same_weekday(*day).last().copied().into_iter().collect(),
        Days::NthOfWeekday(day, nth) => {
            same_weekday(*day).get(usize::from(*nth) - 1).copied().into_iter().collect()
        }
    };
    days.contains(&date) && in_numbers(&fields.months, date.month()) && year_taken(fields, date.year())
}

fn year_taken(fields: &Fields, year: i32) -> bool {
    u32::try_from(year).is_ok_and(|year| in_numbers(&fields.years, year))
}

fn takes_time(fields: &Fields, time: NaiveTime) -> bool {
    in_numbers(&fields.seconds, time.second())
        && in_numbers(&fields.minutes, time.minute())
        && in_numbers(&fields.hours, time.hour())
}

fn takes(fields: &Fields, time: NaiveDateTime) -> bool {
    takes_time(fields, time.time()) && takes_day(fields, time.date())
}

/// The runs of a schedule in a window without gaps in it, from what the clocks show second by second.
fn runs_by_the_second(
    fields: &Fields,
    zone: Zone,
    window: (NaiveDateTime, NaiveDateTime),
) -> Vec<DateTime<Utc>> {
    let spaced = fields.minutes_are_spaced || fields.hours == Numbers::All;
    let shown = |moment: NaiveDateTime| moment.checked_add_offset(zone.offset_at(moment)).unwrap();
    let mut runs = Vec::new();
    let mut moment = window.0;
    let mut newest = shown(moment);
    while moment < window.1 {
        let before = shown(moment);
        moment += SECOND;
        let now = shown(moment);
        let jump = now - before - SECOND;
        let lost = std::iter::successors(Some(before + SECOND), |wall| Some(*wall + SECOND))
            .take_while(|wall| *wall < now)
            .any(|wall| takes(fields, wall) && !(spaced && takes(fields, wall + jump)));
        if lost || takes(fields, now) && (spaced || now > newest) {
            runs.push(moment.and_utc());
        }
        newest = newest.max(now);
    }
    runs
}

fn item(first: u16, last: u16) -> impl Strategy<Value = String> {
    let number = first..=last;
    let step = 1..=(last - first).min(12);
    prop_oneof![
        4 => number.clone().prop_map(|n| n.to_string()),
        2 => (number.clone(), number.clone()).prop_map(|(a, b)| format!("{a}-{b}")),
        2 => (number.clone(), step.clone()).prop_map(|(a, step)| format!("{a}/{step}")),
        1 => step.clone().prop_map(|step| format!("*/{step}")),
        1 => (number.clone(), number, step).prop_map(|(a, b, step)| format!("{a}-{b}/{step}")),
    ]
}

fn list_of(first: u16, last: u16) -> impl Strategy<Value = String> {
    prop_oneof![
        1 => Just("*".to_owned()),
        3 => prop::collection::vec(item(first, last), 1..4).prop_map(|items| items.join(",")),
    ]
}

fn day_fields() -> impl Strategy<Value = (String, String)> {
    let of_month = prop_oneof![
        3 => list_of(1, 31),
        1 => Just("L".to_owned()),
        1 => (1..=30).prop_map(|days| format!("L-{days}")),
        1 => Just("LW".to_owned()),
        2 => (1..=31).prop_map(|day| format!("{day}W")),
    ];
    let of_week = prop_oneof![
        3 => list_of(1, 7),
        1 => (1..=7).prop_map(|day| format!("{day}L")),
        2 => (1..=7, 1..=5).prop_map(|(day, nth)| format!("{day}#{nth}")),
    ];
    prop_oneof![of_month.prop_map(|day| (day, "?".to_owned())), of_week.prop_map(|day| ("?".to_owned(), day))]
}

fn schedule_text() -> impl Strategy<Value = String> {
    let month = prop_oneof![2 => Just("*".to_owned()), 2 => item(1, 12)];
    let year = prop_oneof![
        4 => Just(String::new()),
        1 => (2027..2090_u16).prop_map(|year| format!(" {year}")),
        1 => (2020..2030_u16, 2..9_u16).prop_map(|(year, step)| format!(" {year}/{step}")),
    ];
    (list_of(0, 59), list_of(0, 59), list_of(0, 23), day_fields(), month, year).prop_map(
        |(s, m, h, (day, weekday), month, year)| format!("{s} {m} {h} {day} {month} {weekday}{year}"),
    )
}

const CHANGES: [(&str, &str); 9] = [
    ("Europe/Berlin", "2027-03-28T01:00:00"),
    ("Europe/Berlin", "2027-10-31T01:00:00"),
    ("America/New_York", "2027-03-14T07:00:00"),
    ("America/New_York", "2027-11-07T06:00:00"),
    ("Australia/Lord_Howe", "2027-10-02T15:30:00"),
    ("Australia/Lord_Howe", "2027-04-03T15:00:00"),
    ("Asia/Beirut", "2027-03-27T22:00:00"),
    ("America/Havana", "2027-11-07T05:00:00"),
    ("UTC", "2027-12-31T23:59:59"),
];

proptest! {
    /// Without changes of the clocks: later, taken by the fields, and nothing between is.
    #[test]
    fn the_next_run_is_the_first_that_the_fields_take(text in schedule_text(), start in 1_767_225_600..2_240_611_200_i64) {
        let start = DateTime::from_timestamp(start, 0).unwrap();
        let fields = Fields::parse(&text).unwrap();
        let next = match Schedule::parse(&text, Zone::Utc) {
            Ok(schedule) => schedule.next_after(start),
            Err(_) => None,
        };
        let (after, end) = (start.naive_utc(), next.map(|next| next.naive_utc()));
        prop_assert!(end.is_none_or(|end| end > after && takes(&fields, end)), "{end:?}");
        // Forty years, since a fifth Sunday in February may be so far away.
        let last_day = end.map_or(after.date() + TimeDelta::days(14_610), |end| end.date());
        for day in after.date().iter_days().take_while(|day| *day <= last_day).filter(|day| takes_day(&fields, *day)) {
            let seconds = (0..86_400).map(|second| day.and_time(NaiveTime::MIN) + TimeDelta::seconds(second));
            let first = seconds.filter(|time| *time > after).find(|time| takes_time(&fields, time.time()));
            prop_assert!(first.is_none() || first == end, "{first:?} comes before {end:?}");
        }
    }

    /// Around changes of the clocks: all the runs, and no other.
    #[test]
    fn the_runs_are_what_the_clocks_say(
        change in prop::sample::select(CHANGES.as_slice()),
        seconds in prop_oneof![Just("0".to_owned()), list_of(0, 59)],
        minutes in list_of(0, 59),
        hours in prop_oneof![Just("*".to_owned()), item(0, 4), item(0, 23)],
        offset in -3600..3600_i64,
    ) {
        let text = format!("{seconds} {minutes} {hours} * * ?");
        let schedule = Schedule::parse(&text, change.0.parse().unwrap()).unwrap();
        let change: NaiveDateTime = change.1.parse().unwrap();
        let window = (change - TimeDelta::seconds(9000), change + TimeDelta::seconds(9000));
        let expected = runs_by_the_second(&Fields::parse(&text).unwrap(), schedule.zone(), window);
        let runs: Vec<_> = std::iter::successors(schedule.next_after(window.0.and_utc()), |run| schedule.next_after(*run))
            .take_while(|run| run.naive_utc() <= window.1)
            .collect();
        prop_assert_eq!(&runs, &expected);
        // From a moment that is no run, too.
        let moment = (change + TimeDelta::seconds(offset)).and_utc();
        if let Some(run) = expected.iter().find(|run| **run > moment) {
            prop_assert_eq!(schedule.next_after(moment), Some(*run));
        }
    }
}
