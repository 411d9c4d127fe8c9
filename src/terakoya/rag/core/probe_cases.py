"""The questions of the citation probe: invented documents, so that nothing can be known by heart. Changing one changes
``VERSION``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from terakoya.domain.documents import Language

VERSION = "1"


@dataclass(frozen=True, slots=True)
class ProbeCase:
    question: str
    documents: tuple[tuple[str, str], ...]
    """Title and text."""
    accepted: tuple[str, ...] = ()
    """What the answer must contain one of; none where the documents do not hold it."""
    source: str = ""
    """What the sentence begins with that must be cited."""


_ENGLISH = (
    ProbeCase(
        "How many days do customers have to return a lamp?",
        (
            ("Returns", "Lamps may be returned within 21 days of delivery. Cushions cannot be returned once opened."),
            ("Shipping", "Orders leave the Harrow depot every Tuesday. Express parcels cost 9 euros."),
        ),
        ("21",),
        "Lamps may be returned",
    ),
    ProbeCase(
        "Who approves expenses above 400 euros?",
        (
            ("Expenses", "Receipts are kept for six years. Expenses above 400 euros are approved by Mirela Stoyan."),
            ("Travel", "Train tickets are booked by the front desk. Taxis need no approval."),
        ),
        ("Stoyan",),
        "Expenses above 400 euros",
    ),
    ProbeCase(
        "At what temperature is the Velmar glue stored?",
        (
            ("Velmar glue", "Velmar glue hardens in 40 minutes. It is stored at 8 degrees in the dark."),
            ("Ostra paint", "Ostra paint is stored at 15 degrees. It covers 12 square metres a litre."),
        ),
        ("8 degrees", "8°"),
        "It is stored at 8",
    ),
    ProbeCase(
        "What is the price of a season ticket for the Quill pool?",
        (
            ("Quill pool", "A single entry to the pool costs 4 euros. A season ticket costs 130 euros."),
            ("Opening hours", "The pool opens at 7 in the morning. It is closed in February."),
        ),
        ("130",),
        "A season ticket",
    ),
    ProbeCase(
        "Which colour is the cable that carries the alarm?",
        (
            ("Wiring", "The grey cable carries the telephone. The violet cable carries the alarm."),
            ("Tools", "Cutters hang beside the door. The ladder belongs to the caretaker."),
        ),
        ("violet",),
        "The violet cable",
    ),
    ProbeCase(
        "When does the Tarn archive close on Fridays?",
        (
            ("Tarn archive", "The archive opens at ten. On Fridays it closes at three in the afternoon."),
            ("Loans", "Maps are not lent. Books are lent for two weeks."),
        ),
        ("three", "3"),
        "On Fridays",
    ),
    ProbeCase(
        "What is the telephone number of the Harrow depot?",
        (
            ("Harrow depot", "The depot lies behind the station. Lorries enter from the north."),
            ("Staff", "Bettina leads the depot. She has worked there since 2011."),
        ),
    ),
    ProbeCase(
        "How much sugar does the Ember cake need?",
        (
            ("Ember cake", "The cake is baked for 50 minutes. It needs three eggs and a lemon."),
            ("Oven", "The oven takes ten minutes to heat."),
        ),
    ),
)
_JAPANESE = (
    ProbeCase(
        "ランプの返品は何日以内ですか。",
        (
            ("返品", "ランプは到着後21日以内なら返品できます。クッションは開封後の返品ができません。"),
            ("配送", "荷物は毎週火曜日に春野倉庫を出ます。速達便は900円です。"),
        ),
        ("21",),
        "ランプは到着後",
    ),
    ProbeCase(
        "4万円を超える経費は誰が承認しますか。",
        (
            ("経費", "領収書は六年間保管します。4万円を超える経費は望月さんが承認します。"),
            ("出張", "列車の切符は受付が手配します。タクシーに承認は要りません。"),
        ),
        ("望月",),
        "4万円を超える",
    ),
    ProbeCase(
        "ベルマ接着剤は何度で保管しますか。",
        (
            ("ベルマ接着剤", "ベルマ接着剤は40分で固まります。暗い場所に8度で保管します。"),
            ("オストラ塗料", "オストラ塗料は15度で保管します。1リットルで12平方メートル塗れます。"),
        ),
        ("8度", "8 度", "8℃"),
        "暗い場所に",
    ),
    ProbeCase(
        "市民プールの年間券はいくらですか。",
        (
            ("市民プール", "プールの一回券は400円です。年間券は13,000円です。"),
            ("開館時間", "プールは朝7時に開きます。二月は休みます。"),
        ),
        ("13,000", "13000", "1万3"),
        "年間券は",
    ),
    ProbeCase(
        "警報の配線は何色ですか。",
        (
            ("配線", "灰色の線は電話に使います。紫色の線は警報に使います。"),
            ("工具", "はさみは扉の横に掛けます。はしごは管理人のものです。"),
        ),
        ("紫",),
        "紫色の線",
    ),
    ProbeCase(
        "金曜日に資料館は何時に閉まりますか。",
        (
            ("資料館", "資料館は10時に開きます。金曜日は15時に閉まります。"),
            ("貸し出し", "地図は貸し出しません。本は二週間借りられます。"),
        ),
        ("15時", "午後3時"),
        "金曜日は",
    ),
    ProbeCase(
        "春野倉庫の電話番号は何番ですか。",
        (
            ("春野倉庫", "倉庫は駅の裏にあります。トラックは北側から入ります。"),
            ("担当者", "倉庫の責任者は小谷さんです。2011年から働いています。"),
        ),
    ),
    ProbeCase(
        "レモンケーキに砂糖は何グラム必要ですか。",
        (
            ("レモンケーキ", "ケーキは50分焼きます。卵が三個とレモンが一個必要です。"),
            ("オーブン", "オーブンは温まるのに10分かかります。"),
        ),
    ),
)
CASES: Mapping[Language, tuple[ProbeCase, ...]] = {Language.ENGLISH: _ENGLISH, Language.JAPANESE: _JAPANESE}
