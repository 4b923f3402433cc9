import { formatRoute, type Route } from "../../lib/state/route";
import { type Key, t } from "../../strings";
import { Icon, type IconName } from "../common/Icon";
import { useApp } from "../context";

const TABS: readonly { route: Route; label: Key; icon: IconName; screens: Route["screen"][] }[] = [
  {
    route: { screen: "create" },
    label: "tab.create",
    icon: "create",
    screens: ["create", "photo", "mask", "job"],
  },
  {
    route: { screen: "gallery" },
    label: "tab.gallery",
    icon: "gallery",
    screens: ["gallery", "picture"],
  },
  {
    route: { screen: "settings" },
    label: "tab.settings",
    icon: "settings",
    screens: ["settings", "models", "pair"],
  },
];

export function TabBar() {
  const here = useApp().route.current.value.screen;
  return (
    <nav class="tabs" aria-label={t("tab.label")}>
      {TABS.map(({ route, label, icon, screens }) => (
        <a
          key={label}
          class="tab"
          href={formatRoute(route)}
          aria-current={screens.includes(here) ? "page" : undefined}
        >
          <Icon name={icon} />
          {t(label)}
        </a>
      ))}
    </nav>
  );
}
