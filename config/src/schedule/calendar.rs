//! The wall clock times that a schedule takes, in a calendar that knows no time zone.

use chrono::{Datelike, Days as DayCount, NaiveDate, NaiveDateTime, TimeDelta};
use job_scheduler_ng::Cron;

use super::fields::{Days, Fields, Numbers};

/// Finds wall clock times.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Calendar {
    cron: Cron,
    /// The day of the month to take, where croner cannot say it; `cron` then takes every day.
    day: Option<DayOfMonth>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DayOfMonth {
    BeforeLast(u32),
    NearestWorkday(u32),
}

impl Calendar {
    /// The calendar of a schedule.
    ///
    /// # Errors
    /// croner's word on the schedule; there is none that it refuses.
    pub(super) fn new(fields: &Fields) -> Result<Self, String> {
        let mut day = None;
        let (day_of_month, day_of_week) = match &fields.days {
            Days::Every => ("*".to_owned(), "*".to_owned()),
            Days::OfMonth(days) => (list(days), "*".to_owned()),
            Days::BeforeLast(0) => ("L".to_owned(), "*".to_owned()),
            // croner has no `L-3` and no `LW`, and skips a `31W` in shorter months.
            Days::BeforeLast(days) => {
                day = Some(DayOfMonth::BeforeLast(u32::from(*days)));
                ("*".to_owned(), "*".to_owned())
            }
            Days::NearestWorkday(to) => {
                day = Some(DayOfMonth::NearestWorkday(u32::from(*to)));
                ("*".to_owned(), "*".to_owned())
            }
            // Sunday is 0 for croner.
            Days::OfWeek(days) => ("*".to_owned(), list(days.iter().map(|day| day - 1))),
            Days::LastOfWeekday(weekday) => ("*".to_owned(), format!("{}L", weekday - 1)),
            Days::NthOfWeekday(weekday, nth) => ("*".to_owned(), format!("{}#{nth}", weekday - 1)),
        };
        let [seconds, minutes, hours, months, years] =
            [&fields.seconds, &fields.minutes, &fields.hours, &fields.months, &fields.years].map(field);
        let cron = format!("{seconds} {minutes} {hours} {day_of_month} {months} {day_of_week} {years}");
        Ok(Self { cron: cron.parse().map_err(|error| format!("is not a schedule: {error}"))?, day })
    }

    /// The first time later than this one, to the second; none when there is no more.
    pub(super) fn next_after(&self, time: NaiveDateTime) -> Option<NaiveDateTime> {
        let mut after = time;
        loop {
            let next = self.cron.find_next_occurrence(&after.and_utc(), false).ok()?.naive_utc();
            let Some(day) = self.day else { return Some(next) };
            let start = match day.in_month(next.date()) {
                Some(day) if day == next.date() => return Some(next),
                Some(day) if day > next.date() => day,
                _ => last_of_month(next.date()).checked_add_days(DayCount::new(1))?,
            };
            after = start.and_hms_opt(0, 0, 0)?.checked_sub_signed(TimeDelta::seconds(1))?;
        }
    }

    /// Whether this is one of the times.
    pub(super) fn takes(&self, time: NaiveDateTime) -> bool {
        self.cron.is_time_matching(&time.and_utc()).unwrap_or(false)
            && self.day.is_none_or(|day| day.in_month(time.date()) == Some(time.date()))
    }
}

impl DayOfMonth {
    /// The day that this is in the month of a date.
    fn in_month(self, date: NaiveDate) -> Option<NaiveDate> {
        let last = u32::from(date.num_days_in_month());
        let day = match self {
            Self::BeforeLast(days) => last.checked_sub(days)?,
            Self::NearestWorkday(day) => {
                let day = day.min(last);
                match date.with_day(day)?.weekday().number_from_monday() {
                    6 if day == 1 => 3,
                    6 => day - 1,
                    7 if day == last => day - 2,
                    7 => day + 1,
                    _ => day,
                }
            }
        };
        date.with_day(day)
    }
}

fn last_of_month(date: NaiveDate) -> NaiveDate {
    date.with_day(u32::from(date.num_days_in_month())).unwrap_or(date)
}

fn field(numbers: &Numbers) -> String {
    match numbers {
        Numbers::All => "*".to_owned(),
        Numbers::Only(numbers) => list(numbers),
    }
}

fn list<T: ToString>(numbers: impl IntoIterator<Item = T>) -> String {
    numbers.into_iter().map(|number| number.to_string()).collect::<Vec<_>>().join(",")
}
